"""Memory that a CPU run frees stays with the process, to be used again at the next step.

A training step frees and asks for the same large tensors again and again. glibc's malloc gives blocks of
megabytes back to the system at once and gets them anew, empty, so that the system fills every page with zeros
at every step. Numbers do not change. It costs memory: batches differ in length, so that freed blocks do not
always fit what is asked for next, and nothing goes back.

Source: glibc manual, section 3.2.3.7, malloc tunable parameters; malloc/malloc.c, `__libc_mallopt`.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys

# malloc.h
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_NEVER = -1  # as the unsigned number it becomes: larger than any block
_GROW_BY = 1 << 26  # bytes asked for at a time, so that growing takes few calls


def keep_freed_memory() -> bool:
    """Tell malloc to serve large blocks from memory it keeps. Returns whether it was told.

    Linux with glibc only; elsewhere nothing happens. It holds for the rest of the process, from now on.
    A user's own MALLOC_... variables and another malloc (LD_PRELOAD) win: they are left as they are.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc" or _is_settled(dict(os.environ)):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    # `mmap` is for blocks that go back to the system one by one, trimming for the end of the heap.
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _GROW_BY))
    told = [mallopt(name, value) for name, value in settings]
    return told == [1, 1, 1]


def _is_settled(environment: dict[str, str]) -> bool:
    """Whether the user has said how malloc behaves."""
    if environment.get("LD_PRELOAD") or "glibc.malloc" in environment.get("GLIBC_TUNABLES", ""):
        return True
    return any(name.startswith("MALLOC_") and name.endswith("_") for name in environment)
