"""What several test files share: a small checkpoint in the official layout, and the shared data."""

import dataclasses
import json
import os
import random
import shutil
import signal
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models are small: threads would only wait

import numpy as np
import pytest
import torch

import train
from minigpt.cli import commands
from minigpt.cli.program import errors_for_people
from minigpt.cli.train_flags import parse
from minigpt.config import GPT2Config
from minigpt.data import Tokens
from minigpt.language.initialize import initialize
from minigpt.model import GPT2
from minigpt.tokenizer import END_OF_TEXT, byte_of_character
from minigpt.weights import save_trunk

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"  # beside the checkout; not part of the project

MERGES = ["Ġ t", "h e", "i n", "Ġt he", "o o", "g oo", "goo d", "Ġ good", "b a", "ba d", "Ġ bad"]
LORA = {
    "lora": 3,
    "lora_on": "c_attn",
    "lora_alpha": 12.0,
    "lora_dropout": 0.0,
}  # flags
CHROMIUM = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update"
)
SMALL = GPT2Config(vocab_size=256 + len(MERGES) + 1, n_positions=64, n_embd=24, n_layer=3, n_head=2)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Keep the user's cache out of the tests, and the tests out of the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MINIGPT_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def handlers():
    """Have signals handled after a test as before it: a program that ends leaves its own."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def shared():
    """Give the path of a shared data file or folder, or skip the test, saying what is missing."""

    def path(name: str) -> Path:
        if not (SHARED / name).exists():
            pytest.skip(f"the shared data has no {name} on this machine")
        return SHARED / name

    return path


def write_vocabulary(folder: Path) -> None:
    """Write a vocab.json and merges.txt of 256 bytes, a few merges, and the end of text."""
    tokens = [*byte_of_character(), *(m.replace(" ", "") for m in MERGES), END_OF_TEXT]
    table = {token: i for i, token in enumerate(tokens)}
    Path(folder, "vocab.json").write_text(json.dumps(table), encoding="utf-8")
    Path(folder, "merges.txt").write_text(
        "\n".join(["#version: 0.2", *MERGES, ""]), encoding="utf-8"
    )


def random_trunk(seed: int = 0, **sizes) -> GPT2:
    """Return a small trunk in eval mode whose every tensor is random and of noticeable size."""
    trunk = initialize(GPT2(dataclasses.replace(SMALL, **sizes)), seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in trunk.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return trunk


def odd_sizes(seed: int) -> dict:
    """Draw the sizes of a small GPT-2: odd head counts, widths, contexts and epsilons."""
    draw = random.Random(seed)
    heads, width = draw.choice([1, 2, 3, 5, 7]), draw.choice([1, 3, 4, 8, 13])
    return {
        "vocab_size": draw.randint(11, 400),
        "n_positions": draw.randint(12, 70),
        "n_embd": heads * width,
        "n_head": heads,
        "n_layer": draw.randint(1, 4),
        "n_inner": draw.choice([None, None, 17, 64]),
        "layer_norm_epsilon": draw.choice([1e-5, 1e-6, 1e-3]),
    }


def oracle_of(trunk: GPT2, kind="GPT2LMHeadModel", **more):
    """Return the model of transformers that has the same config and the same values."""
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(**trunk.config.to_json(), **more)
    model = getattr(transformers, kind)(config).eval()
    missing, extra = model.transformer.load_state_dict(trunk.state_dict(), strict=False)
    assert not extra and all(name.endswith(("attn.bias", "masked_bias")) for name in missing)
    return model


def some_texts(n=24, seed=0) -> Tokens:
    """Return texts of 2 to 29 random tokens, of two classes, for the trunk of `random_trunk`."""
    draw = np.random.default_rng(seed)
    ids = [draw.integers(0, 250, draw.integers(2, 30)) for _ in range(n)]
    return Tokens(ids, torch.from_numpy(draw.integers(0, 2, n)))


def without_key_bias(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return what of a tensor can be compared after training by two routes.

    The bias of the keys adds the same to all scores of a query, which softmax ignores: its gradient
    is 0 but for rounding, and Adam, which divides by the gradient's size, makes steps of that.
    """
    if name.endswith("attn.c_attn.bias"):
        query, _, value = tensor.chunk(3)
        return torch.cat((query, value))
    return tensor


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """Give a folder in the official layout: a small random trunk with a vocabulary of its own."""
    folder = tmp_path / "checkpoint"
    save_trunk(random_trunk(), folder)
    write_vocabulary(folder)
    return folder


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run `train.py` or a command of `python -m minigpt` in an empty folder.

    Returns (exit status, stdout, stderr).
    """
    monkeypatch.chdir(tmp_path)

    def call(*argv):
        command, *flags = map(str, argv)
        monkeypatch.setattr(sys, "argv", ["minigpt", command, *flags])
        capsys.readouterr()
        status = 0
        try:
            with errors_for_people():
                if command == "train":
                    train.main(parse(train.__doc__, flags))
                else:
                    commands.main()
        except SystemExit as exit:
            status = exit.code or 0
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def texts(tmp_path) -> Path:
    """Give a file of texts whose rating is one word, anywhere in them."""
    rows = ["text\tlabel"]
    for i in range(200):
        words = ["the"] * (i % 7) + [["good", "bad"][i % 2]] + ["tin"] * (i % 5)
        rows.append(" ".join(words) + f" {i}\t{['yes', 'no'][i % 2]}")
    path = tmp_path / "texts.tsv"
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """Give a browser, or skip the test, saying what is missing."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if missing := [name for name, path in programs.items() if not path]:
        pytest.skip(f"{' and '.join(missing)} not found; Debian: chromium, chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = programs["chromium"]
    for flag in CHROMIUM.split():
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(programs["chromedriver"]))
    driver.get("about:blank")  # so that no test sees what Chromium's first tab loads
    yield driver
    driver.quit()
