"""How the cost of the frozen part grows: with the number of texts, their length, and the model.

    python benchmarks/scaling.py [--data D] [--texts 1000,10000,67349]

Prints tokens per second and peak memory: of the pass over N texts of D (repeated or cut to N), on
weights/tiny; over texts of 16 to 1,024 tokens, and over models of growing size, on random weights.
Each line is a process of its own.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch

from minigpt.checkpoints import Checkpoint, find_checkpoint, open_tokenizer
from minigpt.config import GPT2Config
from minigpt.data import Tokens, tokenize
from minigpt.datasets import load_dataset
from minigpt.fast import PartialClassifier, precompute
from minigpt.freeze import freeze
from minigpt.language.initialize import initialize
from minigpt.model import GPT2
from minigpt.runs import peak_memory
from minigpt.weights import load_trunk

LENGTHS = (16, 64, 256, 1024)
MODELS = ((4, 256), (8, 384), (12, 768), (24, 1024))  # blocks, width


def texts_of(data: str, count: int) -> tuple[GPT2, Tokens, Checkpoint]:
    """Return tiny, and as many texts."""
    checkpoint = find_checkpoint("tiny")
    tokenizer = open_tokenizer(checkpoint)
    dataset = load_dataset(data, seed=0)
    examples = (dataset.train * (1 + count // len(dataset.train)))[:count]
    tokens = tokenize(examples, dataset.labels, tokenizer, 256)
    return load_trunk(checkpoint.folder), tokens, checkpoint


def random_texts(blocks: int, width: int, length: int, tokens: int):
    """Return a random trunk, and texts of one length with as many tokens in all."""
    config = GPT2Config(n_layer=blocks, n_embd=width, n_head=width // 64, vocab_size=8192)
    ids = np.random.default_rng(0).integers(0, 8192, (max(1, tokens // length), length))
    checkpoint = Checkpoint("random", None, "", config)
    return initialize(GPT2(config)), Tokens([*ids], torch.zeros(len(ids), dtype=int)), checkpoint


def measure(kind: str, *values: str) -> None:
    """Run the pass once in this process; print seconds, tokens and peak memory."""
    trunk, texts, checkpoint = (
        texts_of(values[0], int(values[1])) if kind == "texts" else random_texts(*map(int, values))
    )
    model = PartialClassifier(trunk, 2).to("cuda" if torch.cuda.is_available() else "cpu")
    freeze(model, set())
    start = time.perf_counter()
    precompute(model, texts, checkpoint)
    seconds = time.perf_counter() - start
    print(seconds, texts.lengths.sum(), peak_memory())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="mirrored")
    parser.add_argument("--texts", default="1000,10000,67349", help="numbers of texts")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return measure(*args.worker)

    rows = [(f"{n} texts", "texts", args.data, n) for n in args.texts.split(",")]
    rows += [(f"texts of {n} tokens", "random", 4, 256, n, 32768) for n in LENGTHS]
    rows += [(f"{b} blocks of {w}", "random", b, w, 32, 4096) for b, w in MODELS]
    print(f"{'':24}{'tokens':>12}{'seconds':>10}{'tokens/s':>12}{'peak memory, MB':>18}")
    for name, *worker in rows:
        with tempfile.TemporaryDirectory() as cache:
            command = [sys.executable, __file__, "--worker", *map(str, worker)]
            env = os.environ | {"MINIGPT_CACHE": cache}
            out = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True)
        seconds, tokens, peak = (float(x) for x in out.stdout.split())
        line = f"{name:24}{tokens:12,.0f}{seconds:10.2f}{tokens / seconds:12,.0f}"
        print(f"{line}{peak / 1e6:18,.0f}", flush=True)


if __name__ == "__main__":
    main()
