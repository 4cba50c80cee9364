"""How this process asks the system for memory."""

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's mallopt(3)


def reuse_memory() -> None:
    """Use freed memory again instead of giving it back at once (with glibc; nothing elsewhere).

    Every training step asks for the same few hundred megabytes, and the system zeroes fresh pages.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
