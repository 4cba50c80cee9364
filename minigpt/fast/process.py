"""How this process uses memory and threads."""

import contextlib
import ctypes
import gc
import multiprocessing
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import torch

from minigpt.edge.errors import InputError
from minigpt.fast.optimizers import leave_out_compiler

work_on_this = None  # in a process of `in_processes`: its function and all jobs
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
    """Make the most of a process that does nothing but train, or read."""
    reuse_memory()
    # What is loaded by now, torch above all, stays: to search it for garbage takes as long as to
    # open a run
    gc.freeze()
    leave_out_compiler()


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


def in_processes(function: Callable, jobs: list, processes: int):
    """Yield function(job) for each job, in order, from processes of one thread each.

    On a small batch, several threads wait for each other at each step, and far longer where other
    programs compute, too; independent jobs need not wait. As the processes are forked, `function`
    and `jobs` are there already, and only results are pickled.
    """
    if min(processes, len(jobs)) < 2:
        yield from map(function, jobs)
        return
    fork = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(processes, fork, begin_work, (function, jobs))
    try:
        yield from pool.map(work_on, range(len(jobs)))
    except BrokenProcessPool:
        message = "a process ended in the middle of its work; is there enough memory?"
        raise InputError(message) from None
    finally:
        pool.shutdown(cancel_futures=True)


def begin_work(function: Callable, jobs: list) -> None:
    """Begin as one of the processes of `in_processes`."""
    global work_on_this
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    work_on_this = function, jobs


def work_on(i: int):
    function, jobs = work_on_this
    return function(jobs[i])


def processes_at_once() -> int:
    """Return how many processes of one thread are worth starting: 1 where they cannot be forked."""
    forks = sys.platform == "linux" and not torch.cuda.is_available()
    return min(8, torch.get_num_threads()) if forks else 1
