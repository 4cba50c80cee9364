"""The memory of this process: how much it took, and how it is asked for."""

import contextlib
import ctypes
import re
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's mallopt(3)


def reuse_memory() -> None:
    """Use freed memory again instead of giving it back at once (with glibc; nothing elsewhere).

    Every training step asks for the same few hundred megabytes, and the system zeroes fresh pages.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def peak_memory() -> int | None:
    """Return the most memory this process ever held, in bytes (None where nobody counts it)."""
    with contextlib.suppress(OSError):  # Linux; getrusage there counts the parent's memory, too
        status = Path("/proc/self/status").read_text()
        if found := re.search(r"VmHWM:\s+(\d+) kB", status):
            return int(found[1]) * 1024
    with contextlib.suppress(ImportError):  # there is none on Windows
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS
    return None
