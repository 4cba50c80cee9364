"""How cost grows: with the number of texts, with their length, and with the size of the model.

    python benchmarks/scaling.py [--data D] [--texts 1000,10000,100000]

Prints time and peak memory of `train.py --freeze-trunk` on N texts (those of D, repeated, with a
number in front of each), alone and as two processes under torchrun; then of the frozen part on
texts of 16 to 1,024 tokens, and of models of growing size, on random weights. Each line is a
process of its own.
"""

import argparse
import csv
import dataclasses
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from minigpt.checkpoints import Checkpoint
from minigpt.config import GPT2Config
from minigpt.data import Tokens
from minigpt.datasets import load_dataset
from minigpt.fast import PartialClassifier, precompute
from minigpt.freeze import freeze
from minigpt.language.initialize import initialize
from minigpt.model import GPT2
from minigpt.runs import peak_memory

ROOT = Path(__file__).parent.parent
LENGTHS = (16, 64, 256, 1024)
MODELS = ((4, 256), (8, 384), (12, 768), (24, 1024))  # blocks, width


def write_texts(data: str, count: int, folder: Path) -> None:
    """Write as many texts to train on, all different, and the dev and test texts of the data."""
    dataset = load_dataset(data, seed=0)
    train = itertools.islice(itertools.cycle(dataset.train), count)
    numbered = (dataclasses.replace(e, text=f"{i} {e.text}") for i, e in enumerate(train))
    for split, examples in (("train", numbered), ("dev", dataset.dev), ("test", dataset.test)):
        with open(folder / f"{split}.tsv", "w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, delimiter="\t")
            table.writerow(("text", "label"))
            table.writerows((example.text, example.label) for example in examples)


def train_head(folder: Path, processes: int) -> dict:
    """Train a head on the texts of a folder; return what is in metrics.json."""
    command = [sys.executable, "train.py"]
    if processes > 1:
        torchrun = ["-m", "torch.distributed.run", "--standalone"]
        command[1:1] = [*torchrun, f"--nproc_per_node={processes}"]
    with tempfile.TemporaryDirectory() as cache:
        out = Path(cache, "run")
        flags = ["--freeze-trunk", "--weights=tiny", f"--data={folder}", f"--out={out}", "--quiet"]
        env = os.environ | {"MINIGPT_CACHE": cache}
        subprocess.run([*command, *flags], env=env, check=True, cwd=ROOT, stdout=subprocess.PIPE)
        return json.loads((out / "metrics.json").read_text())


def random_texts(blocks: int, width: int, length: int, tokens: int):
    """Return a random trunk, and texts of one length with as many tokens in all."""
    config = GPT2Config(n_layer=blocks, n_embd=width, n_head=width // 64, vocab_size=8192)
    ids = np.random.default_rng(0).integers(0, 8192, (max(1, tokens // length), length))
    checkpoint = Checkpoint("random", None, "", config)
    return initialize(GPT2(config)), Tokens([*ids], torch.zeros(len(ids), dtype=int)), checkpoint


def measure(*sizes: str) -> None:
    """Run the frozen part once in this process; print seconds, tokens and peak memory."""
    trunk, texts, checkpoint = random_texts(*map(int, sizes))
    model = PartialClassifier(trunk, 2).to("cuda" if torch.cuda.is_available() else "cpu")
    freeze(model, set())
    start = time.perf_counter()
    precompute(model, texts, checkpoint)
    seconds = time.perf_counter() - start
    print(seconds, texts.lengths.sum(), peak_memory())


def by_number(data: str, counts: list[int]) -> None:
    """Print how the cost of a head on a frozen trunk grows with the number of texts."""
    titles = ("frozen part, s", "texts/s", "head, s", "in all, s", "MB a process")
    print(f"{'':36}" + "".join(f"{title:>17}" for title in titles))
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            write_texts(data, count, Path(folder))
            for processes in (1, 2):
                metrics = train_head(Path(folder), processes)
                seconds, peak = metrics["seconds"], metrics["peak_memory_bytes"] / 1e6
                frozen, head = seconds["frozen"], seconds["fit"]
                read = count + metrics["data"]["dev"]  # test is not in these seconds
                how = f"{count:,} texts" + (", two processes" if processes > 1 else "")
                cells = f"{frozen:17.1f}{read / frozen:17,.0f}{head:17.1f}{seconds['total']:17.1f}"
                print(f"{how:36}{cells}{peak:17,.0f}", flush=True)


def by_size() -> None:
    """Print how the cost of the frozen part grows with the length of texts and the model."""
    rows = [(f"texts of {n} tokens", 4, 256, n, 32768) for n in LENGTHS]
    rows += [(f"{b} blocks of {w}", b, w, 32, 4096) for b, w in MODELS]
    print(f"\n{'':24}{'tokens':>12}{'seconds':>10}{'tokens/s':>12}{'peak memory, MB':>18}")
    for name, *worker in rows:
        with tempfile.TemporaryDirectory() as cache:
            command = [sys.executable, __file__, "--worker", *map(str, worker)]
            env = os.environ | {"MINIGPT_CACHE": cache}
            out = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True)
        seconds, tokens, peak = (float(x) for x in out.stdout.split())
        line = f"{name:24}{tokens:12,.0f}{seconds:10.2f}{tokens / seconds:12,.0f}"
        print(f"{line}{peak / 1e6:18,.0f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="mirrored")
    parser.add_argument("--texts", default="1000,10000,100000", help="numbers of texts")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return measure(*args.worker)
    by_number(args.data, [int(n) for n in args.texts.split(",")])
    by_size()


if __name__ == "__main__":
    main()
