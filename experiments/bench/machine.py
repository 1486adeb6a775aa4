"""What the machine does beside computing: peak memory, malloc's ways, the rate of its matrix units."""

from __future__ import annotations

import ctypes
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from qa.cpu.allocation import keep_freed_memory
from qa.results import peak_memory_bytes

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Memory:
    """The most memory taken since `start`, beyond what there was: allocated on the GPU, else resident."""

    before: int

    @classmethod
    def start(cls) -> Memory:
        """Give back what is free, and forget earlier peaks (Linux; elsewhere the peak is the process's)."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            return cls(int(torch.cuda.memory_allocated()))
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        with suppress(OSError):
            _CLEAR.write_text("5")
        return cls(_resident("VmRSS"))

    def peak(self) -> int:
        """Bytes."""
        if torch.cuda.is_available():
            return int(torch.cuda.max_memory_allocated()) - self.before
        return _resident("VmHWM") - self.before


def _resident(name: str) -> int:
    if not _STATUS.is_file():
        return peak_memory_bytes()
    rows = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="utf-8").splitlines())
    return int(rows[name].split()[0]) * 1024


def malloc_as_a_run_sets_it() -> None:
    """`qa.cpu.allocation` as a run on a CPU calls it."""
    if not torch.cuda.is_available():
        keep_freed_memory()


def malloc_as_it_comes() -> None:
    """glibc's own ways, as they are once its thresholds have grown as far as they go (mallopt(3))."""
    if sys.platform != "linux" or torch.cuda.is_available():
        return
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for name, value in ((-4, 65536), (-3, 32 << 20), (-1, 64 << 20), (-2, 128 << 10)):
            mallopt(name, value)


def matrix_rate(size: int = 8192, seconds: float = 2.0) -> float:
    """FLOP/s of a bf16 matrix product on the GPU, after it has warmed up."""
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    done, started = 0, 0.0
    for round_ in range(2):
        torch.cuda.synchronize()
        started, done = time.perf_counter(), 0
        while time.perf_counter() - started < (0.5 if round_ == 0 else seconds):
            for _ in range(20):
                a @ b
            torch.cuda.synchronize()
            done += 20
    return 2 * size**3 * done / (time.perf_counter() - started)
