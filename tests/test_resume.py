"""A run that was stopped, killed or robbed of its disk goes on as if nothing had happened."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, files_of
from safetensors.torch import load_file, save_file
from test_train import POLICIES

from minigpt import fit, journal
from minigpt.errors import Stopped

FIGURES = ("weights", "data", "freezing", "recipe", "dev", "test")


def outcome(folder) -> dict:
    """Return what a finished run came to, but for what the clock says and where it lies."""
    folder = Path(folder)
    assert files_of(folder) == {"metrics.json", "run.json", "learned.safetensors", "history.jsonl"}
    metrics = json.loads((folder / "metrics.json").read_text())
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("seconds", None)
    for name in ("out", "quiet"):
        metrics["recipe"].pop(name)
    figures = {name: metrics[name] for name in FIGURES} | {"history": lines}
    return figures | {"learned": (folder / "learned.safetensors").read_bytes()}


def stop_at(steps: set[int], monkeypatch) -> None:
    """Have Ctrl-C pressed twice in the middle of each of these steps, counted over all phases."""
    taken, real = [0], fit.take_step

    def take_step(*args):
        taken[0] += 1
        if taken[0] in steps:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(fit, "take_step", take_step)


@pytest.mark.parametrize("flags", POLICIES, ids=" ".join)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(
    flags, run, checkpoint, texts, monkeypatch
):
    """For every policy and every tuning method; stopped in the first epoch, and in a later one."""
    how = ["--weights", checkpoint, "--data", texts, *flags, "--epochs", 3, "--save-every", "0"]
    status, _, err = run("train", *how, "--out", "whole")
    assert status == 0, err
    stop_at({3, 13 if "--warm-head" in flags else 7}, monkeypatch)
    status, _, err = run("train", *how, "--out", "parts")
    assert status == 130 and "step 2 is saved. To go on: python train.py --resume parts" in err
    status, _, err = run("train", "--resume", "parts")
    assert status == 130 and "is saved" in err
    assert not Path("parts/run.json").exists()
    status, _, err = run("train", "--resume", "parts")
    assert status == 0, err
    assert outcome("parts") == outcome("whole")


def test_a_run_stopped_between_its_phases_goes_on_with_the_second(
    run, checkpoint, texts, monkeypatch
):
    """With the head fitted, and the trunk's first step not yet taken."""
    how = ["--weights", checkpoint, "--data", texts, "--warm-head", 2, "--epochs", 1]
    run("train", *how, "--out", "whole")
    stop_at({11}, monkeypatch)
    status, _, err = run("train", *how, "--out", "parts")
    assert status == 130 and "step 0 is saved" in err
    monkeypatch.setattr("train.fit_head", None)  # would fail if it were called
    status, _, err = run("train", "--resume", "parts")
    assert status == 0, err
    assert outcome("parts") == outcome("whole")


def test_the_state_is_as_old_as_save_every_says_or_the_last_evaluation(
    run, checkpoint, texts, monkeypatch
):
    """160 texts are 5 steps an epoch."""
    how = ["--weights", checkpoint, "--data", texts]
    for every, step in (("0", 8), ("3600", 5)):
        with monkeypatch.context() as patch:
            stop_at({9}, patch)
            _, _, err = run("train", *how, "--save-every", every, "--out", every)
        assert f"step {step} is saved" in err
        lines = Path(every, "history.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == [0, 1]
