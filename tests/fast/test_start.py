"""Starting: what a command does not need, it does not load; and that changes no number."""

import os
import subprocess
import sys

from conftest import ROOT

TRAIN = """
import sys
from torch import nn
import torch
from minigpt.fast.optimizers import leave_out_compiler
if {left_out}:
    leave_out_compiler()
torch.manual_seed(0)
layer = nn.Linear(5, 3)
groups = [{{"params": p, "weight_decay": d}} for p, d in zip(layer.parameters(), (0.1, 0.0))]
optimizer = torch.optim.AdamW(groups, lr=0.1, fused=True)
for _ in range(5):
    layer(torch.randn(7, 5)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()
assert all(p.grad is None for p in layer.parameters())
print([p.tolist() for p in layer.parameters()], "torch._dynamo" in sys.modules)
"""


def python(*arguments, **env) -> str:
    env = os.environ | {"PYTHONPATH": str(ROOT)} | env
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout


def test_without_the_compiler_an_optimizer_computes_the_same():
    without, loaded = python("-c", TRAIN.format(left_out=True)).rsplit(maxsplit=1)
    as_torch_does, _ = python("-c", TRAIN.format(left_out=False)).rsplit(maxsplit=1)
    assert without == as_torch_does and loaded == "False"


def test_a_signal_while_torch_loads_ends_the_program_in_one_line(tmp_path):
    """And numpy is there by then: torch loads it, if it is not, and drops a signal on the way."""
    stopped = "import os, signal, sys\nassert 'numpy' in sys.modules\n"
    (tmp_path / "torch.py").write_text(stopped + "os.kill(os.getpid(), signal.SIGTERM)")
    env = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    for command in ([str(ROOT / "train.py")], ["-m", "minigpt", "train"]):
        done = subprocess.run([sys.executable, *command], env=env, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (143, "\ninterrupted\n")


def test_help_and_wrong_flags_are_answered_without_torch(tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    for command in ([ROOT / "train.py"], ["-m", "minigpt"], ["-m", "minigpt", "train"]):
        assert "usage: " in python(*command, "--help", PYTHONPATH=path)
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "--lr", "-1"],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stderr.startswith("error: argument --lr: -1 is not")
