"""How fast, against transformers: the same weights, texts, epochs and batch sizes, in one run.

    python benchmarks/speed.py [--small] [--data D] [--texts N] [--times T] [--only ROW[,ROW]]

Random weights of the 124M shape (--small: 4 blocks of 256). Each cell is a process of its own, ours
and theirs in turn; seconds are without imports, medians over --times rounds. Theirs is what the
documentation of transformers tells a user to write: GPT2ForSequenceClassification, batches of 32
padded to their longest text, requires_grad off for the frozen part, no_grad for evaluation.
"share" is the part reached of the largest matrix-product rate that this machine showed in this run,
counting the products of real tokens only. Needs the test extra: pip install -e .[test]
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from minigpt.checkpoints import describe, find_checkpoint, open_tokenizer
from minigpt.config import GPT2Config
from minigpt.data import Tokens, tokenize
from minigpt.datasets import load_dataset
from minigpt.fast import (
    FrozenPart,
    PartialClassifier,
    packed_to_generate,
    precompute,
    reuse_memory,
)
from minigpt.fast.int8 import has_int8
from minigpt.fast.packing import PackedLinear, can_pack
from minigpt.fit import Recipe, Training, read_all, train_to_end
from minigpt.freeze import freeze, names_to_train
from minigpt.head import HEAD_RECIPE, fit_head
from minigpt.language.generate import generate_ids
from minigpt.language.initialize import initialize
from minigpt.model import GPT2
from minigpt.runs import peak_memory
from minigpt.weights import load_trunk, save_trunk

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = {False: GPT2Config(), True: GPT2Config(n_embd=256, n_layer=4, n_head=4)}
FINE = Recipe(1, 32, 5e-5, 0.1, 0.1, 1.0, 1, seed=0)  # 5e-5: what the documentation uses

ROWS = {
    "open": "opening the weights",
    "pass": "trunk pass",
    "pass-bf16": "trunk pass, bfloat16",
    "pass-int8": "trunk pass, int8",
    "frozen": "frozen trunk, 10 epochs",
    "frozen-bf16": "the same, bfloat16",
    "warm": "the same, float32, cache warm",
    "last": "--train-last 2, 10 epochs",
    "full": "full fine-tuning, 1 epoch",
    "predict": "prediction",
    "generate": "generation, 256 tokens",
}


def texts_in(folder: Path, part: str) -> Tokens:
    rows = json.loads((folder / "texts.json").read_text())[part]
    return Tokens([np.array(ids) for ids, _ in rows], torch.tensor([label for _, label in rows]))


def ours(row: str, folder: Path):
    """Return the work of a row as a function; what stands before it is not measured."""
    kind, _, low = row.partition("-")
    dtype = torch.bfloat16 if DEVICE == "cuda" else torch.float32  # as theirs on a GPU
    dtype = {"bf16": torch.bfloat16, "int8": torch.int8}.get(low, dtype)
    train, dev, test = (texts_in(folder, part) for part in ("train", "dev", "test"))

    def opened(policy: dict):
        checkpoint = describe("random", folder)
        model = PartialClassifier(load_trunk(folder), 2, dtype=dtype).to(DEVICE)
        freeze(model, names_to_train(model.transformer, **policy))
        return model, checkpoint

    if kind == "open":
        describe("random", folder)  # the first time takes the file's hash: see opening.py
        return lambda: opened({})
    if kind == "pass":
        model, checkpoint = opened({"freeze_trunk": True})
        return lambda: precompute(model, train, checkpoint)
    if kind == "predict":
        model, _ = opened({"freeze_trunk": True})
        return lambda: read_all(FrozenPart(model).logits, test, DEVICE)
    if kind == "generate":
        model, _ = opened({})
        how = {"tokens": 256, "temperature": 0}
        trunk, ids = model.transformer, train.ids[0].tolist()
        return lambda: list(generate_ids(packed_to_generate(trunk), ids, **how))

    def training():
        reuse_memory()
        policy = {"last": {"train_last": 2}, "full": {}}.get(kind, {"freeze_trunk": True})
        model, checkpoint = opened(policy)
        computed = [precompute(model, part, checkpoint) for part in (train, dev)]
        if kind in ("frozen", "warm"):
            fit_head(model.score, *computed, dataclasses.replace(HEAD_RECIPE, epochs=10))
        else:
            recipe = dataclasses.replace(FINE, epochs=10 if kind == "last" else 1)
            train_to_end(Training.of(model, recipe, len(train)), *computed)

    return training


def theirs(row: str, folder: Path):
    """Return the same as a user of transformers would write it."""
    from torch.utils.data import DataLoader
    from transformers import GPT2ForSequenceClassification, GPT2LMHeadModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    kind = row.partition("-")[0]

    def opened(kind=GPT2ForSequenceClassification):
        more = {"num_labels": 2, "pad_token_id": 0} if kind != GPT2LMHeadModel else {}
        return kind.from_pretrained(folder, **more).to(DEVICE).eval()

    def padded(rows):
        longest = max(len(ids) for ids, _ in rows)
        ids = [[*ids, *[0] * (longest - len(ids))] for ids, _ in rows]
        mask = [[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in rows]
        return {
            "input_ids": torch.tensor(ids),
            "attention_mask": torch.tensor(mask),
            "labels": torch.tensor([label for _, label in rows]),
        }

    def loader(part, shuffle=False):
        rows = json.loads((folder / "texts.json").read_text())[part]
        return DataLoader(rows, batch_size=32, shuffle=shuffle, collate_fn=padded)

    def run(model, batch):
        with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
            return model(**{name: x.to(DEVICE) for name, x in batch.items()})

    @torch.no_grad()
    def read(model, part):
        model.eval()
        return [run(model, batch).logits.argmax(-1).tolist() for batch in loader(part)]

    if kind == "open":
        return opened
    if kind in ("pass", "predict"):
        model = opened()
        return lambda: read(model, "train" if kind == "pass" else "test")
    if kind == "generate":
        model, (ids, _) = opened(GPT2LMHeadModel), loader("train").dataset[0]
        model.generation_config.eos_token_id = None
        how = {"max_new_tokens": 256, "do_sample": False, "pad_token_id": 0}
        return lambda: model.generate(torch.tensor([ids], device=DEVICE), **how)

    def training():
        model = opened()
        if kind != "full":
            model.transformer.requires_grad_(False)
        if kind == "last":
            model.transformer.h[-2:].requires_grad_(True)
            model.transformer.ln_f.requires_grad_(True)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=5e-5, weight_decay=0.1)
        for _ in range(1 if kind == "full" else 10):
            model.train()
            for batch in loader("train", shuffle=True):
                run(model, batch).loss.backward()
                torch.nn.utils.clip_grad_norm_(trained, 1.0)
                optimizer.step()
                optimizer.zero_grad()
            read(model, "dev")

    return training


def work(side: str, row: str, folder: Path) -> None:
    """Do a row in this process; print its seconds and the most memory held, in bytes."""
    torch.manual_seed(0)
    job = {"ours": ours, "theirs": theirs}[side](row, folder)
    start = time.perf_counter()
    job()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    print(seconds, torch.cuda.max_memory_allocated() if DEVICE == "cuda" else peak_memory())


def matrix_rate(dtype: torch.dtype) -> float:
    """Return the most operations a second that a product of matrices reached here."""
    best = 0.0
    for n in (1024, 2048, 4096) if DEVICE == "cpu" else (4096, 8192):
        a = torch.randn(n, n, device=DEVICE).to(dtype)
        ways = [lambda a=a: a @ a]
        if can_pack(a):  # laid out beforehand, as for what is frozen
            packed = PackedLinear(a)
            ways.append(lambda a=a, packed=packed: packed(a))
        for product in ways * 5:
            start = time.perf_counter()
            product()[0, 0].item()
            best = max(best, 2 * n**3 / (time.perf_counter() - start))
    return best


def operations(row: str, config: GPT2Config, tokens: dict[str, int]) -> float | None:
    """Return the multiplications and additions that a row needs, with the matrices of the blocks.

    Twice the size of a matrix for each token forwards, and twice that again backwards; without the
    MLP of the last block, which reads one token of a text. None where the work is not such
    products: opening, generation, a warm cache.
    """
    block = 2 * 12 * config.n_embd**2
    train, dev, test = tokens["train"], tokens["dev"], tokens["test"]
    mlp = block * 8 / 12
    everything, last_two = block * config.n_layer - mlp, block * 2 - mlp
    return {
        "pass": everything * train,
        "frozen": everything * (train + dev),
        "last": block * (config.n_layer - 2) * (train + dev) + last_two * 10 * (3 * train + dev),
        "full": everything * (3 * train + 2 * dev),
        "predict": everything * test,
    }.get(row.partition("-")[0])


def prepare(folder: Path, config: GPT2Config, data: str, texts: int, predict: int) -> dict:
    """Write weights and token ids for all processes; return the number of tokens in each part."""
    save_trunk(initialize(GPT2(config)), folder)
    tiny = find_checkpoint("tiny")  # its vocabulary fits in any larger model
    for name in ("vocab.json", "merges.txt"):
        (folder / name).write_bytes((tiny.folder / name).read_bytes())
    tokenizer = open_tokenizer(tiny)
    dataset = load_dataset(data, seed=0)
    order = np.random.default_rng(0).permutation(len(dataset.train))
    some = [dataset.train[i] for i in order]
    some = (some * (1 + predict // len(some)))[: max(predict, texts + texts // 4)]
    tokens = tokenize(some, dataset.labels, tokenizer, 256)
    rows = [(ids.tolist(), int(i)) for ids, i in zip(tokens.ids, tokens.labels, strict=True)]
    parts = {
        "train": rows[:texts],
        "dev": rows[texts : texts + texts // 4],
        "test": rows[:predict],
    }
    (folder / "texts.json").write_text(json.dumps(parts))
    return {part: sum(len(ids) for ids, _ in rows) for part, rows in parts.items()}


def measure(row: str, rows: list[str], round_: int, folder: str, measured: dict) -> None:
    """Add (seconds, bytes) of a row, ours and theirs, each from a process of its own."""
    same = {"frozen-bf16": "frozen", "warm": "frozen", "pass-bf16": "pass", "pass-int8": "pass"}
    same = same.get(row)
    for side in ("ours", "theirs"):
        results = measured.setdefault((row, side), [])
        if side == "theirs" and same in rows:  # measured already
            results.append(measured[same, side][round_])
            continue
        cache = f"{folder}/cache-{round_}-{'frozen' if row == 'warm' else row}"
        command = [sys.executable, __file__, "--worker", side, row, folder]
        env = os.environ | {"MINIGPT_CACHE": cache}
        run = subprocess.run(command, env=env, capture_output=True, text=True)
        if run.returncode:
            sys.exit(run.stderr)
        results.append([float(x) for x in run.stdout.split()[-2:]])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--small", action="store_true", help="4 blocks of 256, for a first try")
    parser.add_argument("--data", default="mirrored", help="as of train.py: whose texts are read")
    parser.add_argument(
        "--texts", type=int, default=128, help="to train on; a quarter more for dev"
    )
    parser.add_argument("--predict", type=int, default=500, help="texts to predict")
    parser.add_argument("--times", type=int, default=1, help="rounds")
    parser.add_argument("--only", default=",".join(ROWS), help=f"of {','.join(ROWS)}")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        side, row, folder = args.worker
        return work(side, row, Path(folder))

    config, rows = SHAPES[args.small], [row for row in ROWS if row in args.only.split(",")]
    if DEVICE == "cuda" or not has_int8():
        rows = [row for row in rows if row != "pass-int8"]
    if "warm" in rows and "frozen" not in rows:
        rows.insert(rows.index("warm"), "frozen")  # it warms the cache
    rates = {dtype: matrix_rate(dtype) for dtype in (torch.float32, torch.bfloat16)}
    with tempfile.TemporaryDirectory() as folder:
        tokens = prepare(Path(folder), config, args.data, args.texts, args.predict)
        measured = {}
        for round_ in range(args.times):
            for row in rows:
                measure(row, rows, round_, folder, measured)
                print(f"round {round_ + 1}: {ROWS[row]} done", file=sys.stderr, flush=True)

    threads = torch.get_num_threads()
    print(f"{config.n_layer} blocks of {config.n_embd} on {DEVICE}, ", end="")
    print(f"torch {torch.__version__}, {threads} threads; ", end="")
    print(f"{args.texts} texts of {args.data}, {args.times} rounds")
    print(", ".join(f"{str(d)[6:]} products: {r / 1e9:,.0f} GFLOP/s" for d, r in rates.items()))
    print(f"{'':32}{'seconds':>18}{'':10}{'share':>8}{'peak memory, MB':>20}")
    print(f"{'':32}{'ours':>9}{'theirs':>9}{'ratio':>10}{'ours':>8}{'ours':>10}{'theirs':>10}")
    for row in rows:
        (mine, memory), (other, memory_2) = (
            [statistics.median(column) for column in zip(*measured[row, side], strict=True)]
            for side in ("ours", "theirs")
        )
        need = operations(row, config, tokens)
        rate = rates[torch.bfloat16 if row.endswith("bf16") else torch.float32]
        share = f"{need / mine / rate:.0%}" if need and row != "pass-int8" else ""
        line = f"{ROWS[row]:32}{mine:9.2f}{other:9.2f}{other / mine:10.1f}{share:>8}"
        print(f"{line}{memory / 1e6:10.0f}{memory_2 / 1e6:10.0f}")


if __name__ == "__main__":
    main()
