"""Jobs in several processes: the same results, in order, and no process is left behind."""

import multiprocessing
import os
import sys

import pytest
import torch

from minigpt.edge.errors import InputError
from minigpt.fast import in_processes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork")


def square(x: int):
    return os.getpid(), torch.get_num_threads(), torch.full((20_000,), x).square().numpy()


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_results_come_in_the_order_of_the_jobs(processes):
    results = list(in_processes(square, [*range(7)], processes))
    assert [int(x[-1]) for _, _, x in results] == [x * x for x in range(7)]
    owners = {owner for owner, _, _ in results}
    assert len(owners) <= processes and (os.getpid() in owners) == (processes == 1)
    assert processes == 1 or {threads for _, threads, _ in results} == {1}
    assert multiprocessing.active_children() == []


def test_an_error_of_a_job_is_raised_and_the_others_are_ended():
    def fail(x: int) -> int:
        if x == 3:
            raise InputError("the third")
        return x

    results = in_processes(fail, [*range(9)], 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputError, match="the third"):
        next(results)
    assert multiprocessing.active_children() == []


def test_a_process_that_dies_is_noticed():
    with pytest.raises(InputError, match="enough memory"):
        list(in_processes(lambda x: os._exit(1), [1, 2], 2))


def test_who_stops_listening_ends_the_processes():
    results = in_processes(square, [*range(9)], 2)
    next(results)
    results.close()
    assert multiprocessing.active_children() == []
