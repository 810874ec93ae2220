"""What a training process sets for itself: threads, denormals, garbage collection, and how memory is given back."""

from __future__ import annotations

import ctypes
import gc
import sys

import torch

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h


def prepare(num_threads: int = 0) -> None:
    """Make this process fit for many small training steps on a CPU. `num_threads` 0 leaves torch's choice."""
    if num_threads:
        torch.set_num_threads(num_threads)
    torch.set_flush_denormal(True)  # decays come near zero, where denormals are slow
    # With ten thousand episodes alive a full collection takes 0.1 s, in which no other episode moves: let them be rare.
    gc.set_threshold(700, 10, 1000)
    if sys.platform == "linux":
        keep_memory()


def keep_memory() -> None:
    """Keep freed memory in the process. A step allocates and frees tensors of megabytes; by default glibc returns them to
    the system each time, and touching fresh pages costs more than the arithmetic on them (measured: a third of a step)."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    mallopt(_M_TOP_PAD, 64 << 20)
