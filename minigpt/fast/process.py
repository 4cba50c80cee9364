"""How this process uses memory and threads."""

import contextlib
import ctypes
import gc

import torch

from minigpt.fast.optimizers import leave_out_compiler

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's mallopt(3)


def reuse_memory() -> None:
    """Use freed memory again instead of giving it back at once (with glibc; nothing elsewhere).

    Every training step asks for the same few hundred megabytes, and the system zeroes fresh pages.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def own_process() -> None:
    """Make the most of a process that does nothing but to train."""
    reuse_memory()
    keep_loaded()
    leave_out_compiler()


def keep_loaded() -> None:
    """Have no search for garbage go through what is loaded by now, torch above all: it stays.

    One such search takes as long as to open a run.
    """
    gc.freeze()


@contextlib.contextmanager
def one_thread():
    """Compute in one thread: for matrices as small as a head's, several mostly wait for each other.

    Where other processes compute as well, they wait far longer.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
