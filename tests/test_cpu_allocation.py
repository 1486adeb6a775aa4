"""malloc's settings on a CPU: told once, in the process that runs, and never against the user's own."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

import pytest

from qa.cpu import allocation

GLIBC = sys.platform == "linux" and platform.libc_ver()[0] == "glibc"

# Counts page faults of 20 times 40 MB, each written to and freed, before and after.
PROGRAM = """
import ctypes, resource, sys
from qa.cpu.allocation import keep_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        block = libc.malloc(40 << 20)
        ctypes.memset(block, 1, 40 << 20)
        libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults(), keep_freed_memory(), faults())
"""


@pytest.mark.skipif(not GLIBC, reason="glibc's malloc only")
def test_freed_blocks_are_used_again_without_asking_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    before, told, after = done.stdout.split()
    assert told == "True"
    # Once for all the block's pages, instead of twenty times.
    assert int(after) < int(before) / 10


@pytest.mark.parametrize(
    "variable",
    [
        ("MALLOC_TRIM_THRESHOLD_", "1000"),
        ("LD_PRELOAD", "libjemalloc.so"),
        ("GLIBC_TUNABLES", "glibc.malloc.mmap_max=1"),
    ],
)
def test_the_users_own_settings_win(variable: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: object) -> None:
        raise AssertionError("malloc must not be looked for")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    monkeypatch.setenv(*variable)
    assert allocation.keep_freed_memory() is False


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert allocation.keep_freed_memory() is False
    monkeypatch.undo()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert allocation.keep_freed_memory() is False
