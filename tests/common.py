"""What several test files share, besides the fixtures in conftest.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, files_of

from minigpt.data import Tokens
from minigpt.model import GPT2

POLICIES = [
    ["--freeze-trunk"],
    ["--freeze-trunk", "--pool", "mean", "--append-end"],
    ["--train-last", "1", "--accumulate", "3"],
    ["--train-only", "*.bias", "--dropout", "0"],
    ["--warm-head", "2", "--pool", "max"],
    ["--max-length", "5"],
    ["--train-only", "bitfit"],
    ["--lora", "2", "--lora-on", "c_attn,mlp.*", "--in-last", "2", "--lora-dropout", "0.1"],
    ["--adapter", "4", "--warm-head", "2"],
    ["--prompt", "3", "--pool", "mean", "--warm-head", "2"],
    ["--prefix", "3", "--append-end"],
    ["--lora", "2", "--dtype", "bfloat16"],
    ["--prefix", "3", "--dtype", "bfloat16"],
]


def some_texts(n=24, seed=0) -> Tokens:
    random = np.random.default_rng(seed)
    ids = [random.integers(0, 250, random.integers(2, 30)) for _ in range(n)]
    return Tokens(ids, torch.from_numpy(random.integers(0, 2, n)))


def oracle_of(trunk: GPT2, kind="GPT2LMHeadModel", **more):
    """Return transformers' model of the same config, with the same values."""
    transformers = pytest.importorskip("transformers")
    model = getattr(transformers, kind)(
        transformers.GPT2Config(**trunk.config.to_json(), **more)
    ).eval()
    missing, extra = model.transformer.load_state_dict(trunk.state_dict(), strict=False)
    assert not extra and all(name.endswith(("attn.bias", "masked_bias")) for name in missing)
    return model


TORCHRUN = [*(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node")]


def start(processes: int, *flags) -> subprocess.Popen:
    """Start train.py alone, or as torchrun does."""
    how = [*TORCHRUN, str(processes)] if processes > 1 else [sys.executable]
    command = [*how, str(ROOT / "train.py"), *map(str, flags)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, env=env, text=True, start_new_session=True, **streams)


FIGURES = ("weights", "data", "freezing", "recipe", "dev", "test")


def outcome(folder) -> dict:
    """Return the results of a finished run, but for the times and where it lies."""
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
