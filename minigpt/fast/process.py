"""How this process uses memory and threads."""

import contextlib
import ctypes
import multiprocessing
import signal
import sys
from collections.abc import Callable

import torch

from minigpt.edge.errors import InputError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's mallopt(3)


def reuse_memory() -> None:
    """Use freed memory again instead of giving it back at once (with glibc; nothing elsewhere).

    Every training step asks for the same few hundred megabytes, and the system zeroes fresh pages.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


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
    programs compute, too; independent jobs need not wait. Process i has every n-th job, from the
    i-th on. As they are forked, only results are pickled.
    """
    if min(processes, len(jobs)) < 2:
        yield from map(function, jobs)
        return
    fork, workers, ends = multiprocessing.get_context("fork"), [], []

    def work(first: int, end) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        torch.set_num_threads(1)
        for job in jobs[first::processes]:
            try:
                end.send((function(job), None))
            except Exception as error:
                end.send((None, error))

    try:
        for first in range(processes):
            receiver, sender = fork.Pipe(duplex=False)
            workers.append(fork.Process(target=work, args=(first, sender), daemon=True))
            workers[-1].start()
            sender.close()
            ends.append(receiver)
        for i in range(len(jobs)):
            result, error = ends[i % processes].recv()
            if error is not None:
                raise error
            yield result
    except EOFError:
        raise InputError(
            "a process ended in the middle of its work; is there enough memory?"
        ) from None
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def processes_at_once() -> int:
    """Return how many processes of one thread are worth starting: 1 where they cannot be forked."""
    forks = sys.platform == "linux" and not torch.cuda.is_available()
    return min(8, torch.get_num_threads()) if forks else 1
