"""Two processes are one: torchrun gives the same losses and weights, and nobody is left hanging."""

import json
import os
import re
import subprocess
import sys
import time

import pytest
import torch
from common import as_torchrun, start
from conftest import ROOT, random_trunk, some_texts, without_key_bias
from safetensors.torch import load_file

from minigpt import fit
from minigpt.classifier import Classifier
from minigpt.freeze import trainable
from minigpt.parallel import GROUP_OF_ONE
from minigpt.runs.journal import STEPS_BETWEEN_MESSAGES


@pytest.mark.parametrize(
    "policy",
    [
        ["--freeze-trunk", "--epochs", "4"],
        ["--train-last", "1", "--accumulate", "2", "--batch-size", "7"],
        ["--batch-size", "1", "--epochs", "1", "--max-length", "6"],
    ],
    ids=" ".join,
)
def test_two_processes_give_the_losses_and_weights_of_one(policy, run, checkpoint, texts, tmp_path):
    """Seven texts do not halve evenly; of a batch of one there is nothing for the other process."""
    flags = ["--weights", checkpoint, "--data", texts, "--dropout", "0", "--epochs", "2", *policy]
    results = []
    for processes in (1, 2):
        env_cache = tmp_path / f"cache-{processes}"
        os.environ["MINIGPT_CACHE"] = str(env_cache)  # own_cache puts the old one back
        folder = tmp_path / str(processes)
        if processes == 1:
            status, out, _ = run("train", *flags, "--out", folder)
        else:
            group = start(processes, *flags, "--out", folder)
            out, status = group.communicate(timeout=120)[0], group.returncode
        assert status == 0, out
        assert out.count("test accuracy") == 1  # one process speaks
        lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        metrics = json.loads((folder / "metrics.json").read_text())
        losses = [[line["dev_loss"], line.get("train_loss", 0)] for line in lines]
        results.append((losses, load_file(folder / "learned.safetensors"), metrics["test"]))
    (losses, weights, test), (losses_2, weights_2, test_2) = results
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(losses_2), rtol=1e-5, atol=1e-5)
    for name, tensor in weights.items():
        ours, oracle = (without_key_bias(name, t) for t in (weights_2[name], tensor))
        torch.testing.assert_close(ours, oracle, rtol=1e-5, atol=1e-5)
    assert test["confusion"] == test_2["confusion"]


def test_processes_at_a_head_stop_together_when_one_is_told_to(checkpoint, texts, tmp_path):
    """In the middle of an epoch of 160 steps, though they speak to each other only now and then."""
    flags = ["--weights", checkpoint, "--data", texts, "--freeze-trunk", "--batch-size", 1]
    how = ["--epochs", 10**6, "--out", tmp_path / "run", "--save-every", 0.2]
    processes = by_hand(2, *flags, *how)
    try:
        wait_for(tmp_path / "run" / "state.safetensors", processes[0])
        processes[1].terminate()
        said, _ = processes[0].communicate(timeout=60)
        assert processes[0].returncode == 143
        step = int(re.search(r"stopped; step (\d+) is saved", said)[1])
        assert step % 160 == 0 or step % STEPS_BETWEEN_MESSAGES == 0
        assert processes[1].wait(timeout=60) == 143
    finally:
        end(processes)


def test_more_processes_than_texts_are_refused(checkpoint, tmp_path):
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.tsv").write_text("good\t1\nbad\t0\n")
    run = start(3, "--weights", checkpoint, "--data", tmp_path, "--out", tmp_path / "run")
    out, _ = run.communicate(timeout=120)
    assert run.returncode != 0 and "error: 3 processes for 2 texts; start fewer" in out
    assert not (tmp_path / "run").exists()


def test_when_a_process_dies_the_others_end_and_say_so(checkpoint, texts, tmp_path):
    flags = ["--weights", checkpoint, "--data", texts, "--epochs", 10000, "--out", tmp_path / "run"]
    processes = by_hand(2, *flags)
    try:
        wait_for(tmp_path / "run" / "state.safetensors", processes[0])
        processes[1].kill()
        out, _ = processes[0].communicate(timeout=60)
        assert processes[0].returncode == 2
        assert "error: another process of this run has ended" in out
    finally:
        end(processes)


def by_hand(number: int, *flags) -> list[subprocess.Popen]:
    """Start processes as torchrun would, which itself may end the others before they can speak."""
    command = [*map(str, [sys.executable, ROOT / "train.py", *flags])]
    common = os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return [subprocess.Popen(command, env=common | env, **streams) for env in as_torchrun(number)]


def wait_for(path, process: subprocess.Popen) -> None:
    """Return when a file is there: training has begun."""
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.05)


def end(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        process.kill()
        process.communicate()


def test_a_process_alone_is_a_group_of_one():
    alone = GROUP_OF_ONE
    assert alone.share([1, 2, 3]) == [1, 2, 3]
    assert alone.all_agree(True) and not alone.all_agree(False)
    assert list(alone.map(lambda batch: torch.tensor(batch), [[1], [2, 3]]))[1].tolist() == [2, 3]


def test_a_group_of_one_trains_as_the_core_does_without_a_group():
    results = []
    for group in (fit.ALONE, GROUP_OF_ONE):
        torch.manual_seed(0)
        model, texts = Classifier(random_trunk(), 2), some_texts()
        recipe = fit.Recipe(1, 8, 1e-3, 0.1, 0.1, 1.0, 2, seed=0)
        t = fit.Training.of(model, recipe, len(texts))
        for _ in fit.fit(t, texts, texts, group):
            pass
        results.append((t.history, trainable(model)))
    (history, weights), (history_2, weights_2) = results
    assert history == history_2
    assert all(torch.equal(weights[name], weights_2[name]) for name in weights | weights_2)
