"""What tests of whole runs share: flags to try, a process of its own, and the results."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, files_of

from minigpt.fast.int8 import has_int8

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

needs_int8 = pytest.mark.skipif(
    not has_int8(), reason="this CPU, or this build of torch, has no int8 products"
)
IN_INT8 = pytest.param(["--train-last", "1", "--dtype", "int8"], marks=needs_int8)

TORCHRUN = [*(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node")]


def start(processes: int, *flags) -> subprocess.Popen:
    """Start train.py alone, or as torchrun does."""
    how = [*TORCHRUN, str(processes)] if processes > 1 else [sys.executable]
    command = [*how, str(ROOT / "train.py"), *map(str, flags)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, env=env, text=True, start_new_session=True, **streams)


def as_torchrun(processes: int) -> list[dict[str, str]]:
    """Return what torchrun puts into the environment of each process: to start them without it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "none"}
    env["WORLD_SIZE"] = str(processes)
    return [env | {"RANK": rank, "LOCAL_RANK": rank} for rank in map(str, range(processes))]


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
