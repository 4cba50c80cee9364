"""Runs that are killed, at any moment and several times, end as if nothing had happened."""

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
from common import as_torchrun, outcome, start
from conftest import ROOT

QUICK = ["--train-last", "1", "--epochs", "8", "--save-every", "0", "--quiet"]


class Forks:
    """Runs of train.py in processes of their own, which need not import torch (forks.py)."""

    def __init__(self, folder: Path):
        env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        command = [sys.executable, str(Path(__file__).with_name("forks.py"))]
        self.server = subprocess.Popen(command, env=env, cwd=folder, **pipes)
        self.folder = folder
        self.wait(self.start("--help"))  # when that is said, all is imported

    def ask(self, **order) -> int:
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def start(self, *flags, out: str = "said", **env) -> int:
        """Start a run; return its process number."""
        return self.ask(start=[*map(str, flags)], env=env, out=str(self.folder / out))

    def wait(self, process: int) -> int:
        """Return a run's exit status, or minus the signal that killed it."""
        return self.ask(wait=process)

    def said(self, out: str = "said") -> str:
        return (self.folder / out).read_text()


@pytest.fixture
def forks(tmp_path):
    """Give what starts runs of train.py quickly; it ends with the test."""
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork processes")
    made = Forks(tmp_path)
    yield made
    made.server.stdin.close()
    made.server.wait(60)


def wait_for(condition, seconds: float = 60) -> None:
    """Wait until something is so; fail if it takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.01)


def how_to_start(folder: Path, flags: list) -> list:
    """Return the flags that go on with a run, or start it where it left no state."""
    if (folder / "state.safetensors").exists():
        return ["--resume", folder]
    return [*flags, "--out", folder]


def test_a_run_that_is_killed_at_20_random_moments_ends_as_if_it_had_not_been(
    forks, checkpoint, texts, tmp_path
):
    """SIGKILL: nothing can be done about it in time. Several to each run, wherever they fall."""
    moment, kills, runs = random.Random(0), 0, 0
    flags = ["--weights", checkpoint, "--data", texts, *QUICK]
    for name in ("first", "whole"):  # the first one leaves much in the cache
        began = time.monotonic()
        assert forks.wait(forks.start(*flags, "--out", tmp_path / name)) == 0, forks.said()
        longest = time.monotonic() - began
    while kills < 20:
        folder, runs = tmp_path / f"run-{runs}", runs + 1
        assert runs < 20, "runs end before they are killed"
        for _ in range(4):
            process = forks.start(*how_to_start(folder, flags))
            time.sleep(moment.uniform(0.2, 0.6) * longest)
            os.kill(process, signal.SIGKILL)
            status = forks.wait(process)
            assert status in (0, -signal.SIGKILL), forks.said()
            if (folder / "run.json").exists():
                break
            if (folder / "history.jsonl").exists():  # it is valid, whenever it was killed
                kills += 1
                lines = (folder / "history.jsonl").read_text().splitlines()
                assert all("dev_loss" in json.loads(line) for line in lines)
        if not (folder / "run.json").exists() or (folder / "state.safetensors").exists():
            assert forks.wait(forks.start(*how_to_start(folder, flags))) == 0, forks.said()
        for left in folder.glob(".new-*"):  # what the next write would have cleared
            shutil.rmtree(left)
        assert outcome(folder) == outcome(tmp_path / "whole")


def in_two(forks, *flags) -> list[int]:
    """Start a run as two processes, as torchrun would; return their numbers."""
    return [forks.start(*flags, out=f"said-{env['RANK']}", **env) for env in as_torchrun(2)]


def test_one_of_two_processes_can_be_killed_and_the_run_goes_on(forks, checkpoint, texts, tmp_path):
    """With dropout, which each process draws for itself: every process's random state counts.

    Killed at any moment after the two have joined; until then one waits for the other.
    """
    flags = ["--weights", checkpoint, "--data", texts, *QUICK]
    began = time.monotonic()
    both = in_two(forks, *flags, "--out", tmp_path / "whole")
    assert [forks.wait(process) for process in both] == [0, 0], forks.said("said-0")
    longest = time.monotonic() - began
    moment, killed, folder = random.Random(1), [], tmp_path / "parts"
    while not (folder / "run.json").exists():
        history = folder / "history.jsonl"  # written anew once the two have joined
        before = history.stat().st_ino if history.exists() else None
        both = in_two(forks, *how_to_start(folder, flags))
        if len(killed) < 4:
            wait_for(lambda h=history, b=before: h.exists() and h.stat().st_ino != b)
            time.sleep(moment.uniform(0, 0.4) * longest)
            victim = moment.randrange(2)
            os.kill(both[victim], signal.SIGKILL)
        statuses = [forks.wait(process) for process in both]
        assert len(killed) < 4 or statuses == [0, 0], forks.said("said-0")
        if statuses != [0, 0]:
            killed.append(victim)
            assert statuses[victim] in (0, -signal.SIGKILL)
            assert statuses[1 - victim] in (0, 2), forks.said(f"said-{1 - victim}")
            if statuses[1 - victim] == 2:
                said = forks.said(f"said-{1 - victim}")
                assert "another process of this run has ended" in said and "Traceback" not in said
    assert killed
    if (folder / "state.safetensors").exists():
        assert [forks.wait(p) for p in in_two(forks, "--resume", folder)] == [0, 0]
    for left in folder.glob(".new-*"):
        shutil.rmtree(left)
    assert outcome(folder) == outcome(tmp_path / "whole")


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(
    number, status, forks, checkpoint, texts, tmp_path
):
    flags = ["--weights", checkpoint, "--data", texts, "--epochs", 10000, "--save-every", 3600]
    process = forks.start(*flags, "--out", tmp_path / "run")
    state = tmp_path / "run" / "state.safetensors"
    wait_for(state.exists)
    time.sleep(0.2)
    os.kill(process, number)
    assert forks.wait(process) == status
    assert f"To resume: python -m minigpt train --resume={tmp_path / 'run'}" in forks.said()
    assert "Traceback" not in forks.said()
    process = forks.start("--resume", tmp_path / "run", out="said again")
    said = tmp_path / "said again"
    wait_for(lambda: said.exists() and "trainable" in said.read_text())
    for _ in range(2):  # the second does not wait for the end of a step, and nothing is lost
        os.kill(process, number)
    assert forks.wait(process) == status
    assert "Traceback" not in forks.said("said again") and state.exists()


def test_torchrun_passes_a_signal_on_and_all_its_processes_save(checkpoint, texts, tmp_path):
    flags = ["--weights", checkpoint, "--data", texts, "--train-last", "1", "--epochs", "300"]
    run = start(2, *flags, "--save-every", 3600, "--out", tmp_path / "run")
    wait_for((tmp_path / "run" / "state.safetensors").exists)
    run.send_signal(signal.SIGTERM)
    out, _ = run.communicate(timeout=60)
    assert run.returncode != 0
    assert "To resume: torchrun --nproc_per_node=2 -m minigpt train --resume=" in out
    assert out.count("To resume") == 1
