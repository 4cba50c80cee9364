"""`pip install .` into another place, used from another folder, without the checkout."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT

import minigpt

NEEDED = ("minigpt", "weights/tiny", "train.py", "pyproject.toml", "README.md", "LICENSE")


def can_build() -> bool:
    """Return whether pip and what pyproject.toml builds with are here."""
    try:
        importlib.metadata.version("pip")
        return int(importlib.metadata.version("setuptools").split(".")[0]) >= 77
    except importlib.metadata.PackageNotFoundError:
        return False


@pytest.mark.skipif(not can_build(), reason="needs pip, and setuptools 77 or newer")
def test_an_installed_package_does_the_main_job_from_another_folder(tmp_path, own_cache):
    source, place, elsewhere = tmp_path / "source", tmp_path / "place", tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in NEEDED:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--no-compile"]
    subprocess.run([*pip, *offline, "--target", place, source], check=True)
    shutil.rmtree(source)

    env = os.environ | {"PYTHONPATH": str(place)}

    def output(*command) -> str:
        return subprocess.run(
            command, cwd=elsewhere, env=env, check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    job = ["train", "--freeze-trunk", "--weights", "tiny", "--epochs", "5", "--max-length", "16"]
    assert "frozen tensors  unchanged, bit for bit" in output(place / "bin" / "minigpt", *job)
    (run,) = (elsewhere / "runs").iterdir()
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["data"]["name"] == "mirrored" and metrics["test"]["accuracy"] > 0.6

    code = f"import json, minigpt; run = minigpt.load({str(run)!r}); "
    code += "from minigpt.edge.checkout import train_command as how; "
    code += "print(json.dumps([minigpt.__file__, how(2), run.predict(['good', 'bad'])]))"
    where, resume, answers = json.loads(output(sys.executable, "-c", code))
    assert resume == "torchrun --nproc_per_node=2 -m minigpt train"
    assert Path(where) == place / "minigpt" / "__init__.py"
    assert answers == minigpt.load(run).predict(["good", "bad"])


def test_every_package_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {path.parent for path in (ROOT / "minigpt").rglob("__init__.py")}
    names = {".".join(path.relative_to(ROOT).parts) for path in packages}
    assert {*project["tool"]["setuptools"]["packages"]} == {*names, "minigpt.checkout"}
