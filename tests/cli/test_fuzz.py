"""A slice of `make fuzz`: damaged and hostile files are taken or refused, and nothing else."""

from pathlib import Path

import pytest


def test_a_few_hundred_damaged_files_are_each_taken_or_refused_in_one_line(tmp_path):
    """Every kind of file there is comes up, and most are refused."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the limit on memory is set where Linux says how much is in use")
    import fuzz

    counts, failures = fuzz.fuzz(400, seed=0)
    assert not failures, "\n".join(failures)
    kinds = {
        "checkpoint",
        "tokenizer",
        "shards",
        "run",
        "state",
        "tsv",
        "csv",
        "jsonl",
        "forms",
        "lines",
        "cache",
    }
    assert counts.keys() == kinds
    assert sum(outcomes["refused"] for outcomes in counts.values()) > 200
