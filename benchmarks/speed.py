"""How fast, against the best others: the same weights, texts, epochs and batch sizes, in one run.

    python benchmarks/speed.py [--small] [--data D] [--read N] [--texts N] [--times T]
                               [--only JOB[,JOB]] [--ways WAY[,WAY]]

Random weights of the 124M shape (--small: 4 blocks of 256, and without what takes long). Each row
of a job is a process of its own, one after the other, the slowest first; seconds are without
imports, medians over --times rounds. ours.py and peers.py have how each does a job. "Reading" is
without what is prepared once: opened weights, laid out or compiled, and for some engines each shape
of a batch; all else begins with closed files (an export is such a file). The columns:

    times        as fast as transformers as documented
    share        of the largest rate of matrix products that this machine showed in this run, for
                 this type, counting the products of real tokens that the job needs: no padding
    MB           the most memory that the process held
    difference   the largest, from the vectors of minigpt in float32 (on a GPU: bfloat16)
    head         the test accuracy of a head on such vectors, if the trunk is that of weights/tiny

Needs the extra for the peers: pip install -e .[bench]. What is not installed is left out.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import ours
import peers
import torch
from ours import DEVICE, EPOCHS, GENERATED, texts_in

from minigpt.checkpoints import find_checkpoint, open_tokenizer
from minigpt.config import GPT2Config
from minigpt.data import tokenize
from minigpt.datasets import Dataset, load_dataset
from minigpt.fast.int8 import has_int8
from minigpt.fast.packing import PackedLinear, can_pack
from minigpt.fit import evaluate
from minigpt.head import Vectors, fit_head
from minigpt.language.initialize import initialize
from minigpt.model import GPT2
from minigpt.runs import peak_memory
from minigpt.weights import load_trunk, save_trunk

SHAPES = {False: GPT2Config(), True: GPT2Config(n_embd=256, n_layer=4, n_head=4)}
HEAD_TEXTS = 2000  # of each split, at most, for the accuracy of a head
PACKAGES = ("torch", "transformers", "peft", "onnxruntime", "openvino")

# A way is a name, and the type it computes in if that is not float32 (on a GPU: bfloat16)
NAMES = peers.NAMES | {"ours": "minigpt", "warm": "minigpt, from its cache"}
ENGINES = ("documented", "sorted", "openvino", "onnx", "ours")
ENGINES += ("sorted-bfloat16", "openvino-bfloat16", "ours-bfloat16", "onnx-int8", "ours-int8")
TRAINERS = ("documented", "sorted", "ours")
JOBS = {
    "read": ("reading with a frozen trunk, prepared", (*ENGINES, "compiled", "compiled-bfloat16")),
    "predict": ("prediction, from opening the weights", ENGINES),
    "frozen": ("a head on a frozen trunk", (*TRAINERS, "warm", "ours-bfloat16")),
    "last": ("--train-last 2", TRAINERS),
    "lora": ("LoRA in all blocks (peft)", TRAINERS),
    "full": ("full fine-tuning", TRAINERS),
    "open": ("opening the weights", ("documented", "ours")),
    "generate": (f"generation of {GENERATED} tokens", ("documented", "ours")),
}


def parts_of(way: str) -> tuple[str, str]:
    """Return the name and the type of a way."""
    name, _, dtype = way.partition("-")
    return name, dtype or {"cpu": "float32", "cuda": "bfloat16"}[DEVICE]


def title(way: str) -> str:
    name, dtype = parts_of(way)
    return f"{NAMES[name]}, {dtype}"


def cells_of(jobs: list[str], ways: list[str]) -> list[tuple[str, str]]:
    """Return what is to be measured, (job, way); say what is left out, and why."""
    cells, lacking = [], {}
    for job in jobs:
        for way in JOBS[job][1]:
            name, _ = parts_of(way)
            needs = [*peers.NEEDS.get(name, ()), *["peft"] * (job == "lora" and name != "ours")]
            needs = [module for module in needs if importlib.util.find_spec(module) is None]
            here = DEVICE == "cpu" or (name == way and name not in ("openvino", "onnx"))
            here = here and (way != "ours-int8" or has_int8())
            here = here and (way != "warm" or "ours" in ways)  # which fills the cache
            if needs and way in ways:
                lacking[title(way)] = needs
            elif here and way in ways:
                cells.append((job, way))
    for name, needs in lacking.items():
        print(f"left out: {name}: no {', '.join(needs)}; pip install -e .[bench]")
    return cells


def work(job: str, way: str, folder: Path) -> None:
    """Do a job in this process; print its seconds and the most memory held, in bytes."""
    torch.manual_seed(0)
    name, dtype = parts_of(way)
    if job == "export":
        return peers.export(folder, int8=dtype == "int8")
    mine = name in ("ours", "warm")
    do = ours.do(job, dtype, folder) if mine else peers.do(job, name, dtype, folder)
    start = time.perf_counter()
    result = do()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    if job == "read":
        np.save(folder / f"{way}.npy", result.numpy())
    print(seconds, torch.cuda.max_memory_allocated() if DEVICE == "cuda" else peak_memory())


def in_process(job: str, way: str, folder: Path, round_=0) -> list[float] | None:
    """Return (seconds, bytes) of a job in a process of its own, or None if it failed, saying so."""
    cache = folder / f"cache-{round_}-{job}-{parts_of(way)[1]}"  # "warm" has that of "ours"
    command = [sys.executable, __file__, "--worker", job, way, str(folder)]
    env = os.environ | {"MINIGPT_CACHE": str(cache)}
    run = subprocess.run(command, env=env, capture_output=True, text=True)
    if run.returncode:
        lines = run.stderr.strip().splitlines() or [f"exit status {run.returncode}"]
        print(f"left out: {job}, {title(way)}: {lines[-1]}")
        return None
    print(f"{job}, {title(way)}: done", file=sys.stderr, flush=True)
    return [float(x) for x in run.stdout.split()[-2:]]


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


def operations(job: str, config: GPT2Config, tokens: dict[str, int]) -> float | None:
    """Return the multiplications and additions that a job needs, with the matrices of the blocks.

    Twice the size of a matrix for each token forwards; backwards, that for what is frozen, twice
    that for what is trained. Without the MLP of the last block, which reads one token of a text.
    None where the work is not such products: opening, generation.
    """
    block, epochs = 2 * 12 * config.n_embd**2, EPOCHS.get(job, 1)
    train, dev, test = (tokens[part] for part in ("train", "dev", "test"))
    read = (epochs + 1) * dev  # dev is read before the first epoch, and after each
    all_blocks, last_two = (block * (n - 2 / 3) for n in (config.n_layer, 2))
    return {
        "read": all_blocks * test,
        "predict": all_blocks * test,
        "frozen": all_blocks * (train + dev),
        "last": (all_blocks - last_two) * (train + dev) + last_two * (3 * epochs * train + read),
        "lora": all_blocks * (2 * epochs * train + read),
        "full": all_blocks * (3 * epochs * train + read),
    }.get(job)


def prepare(folder: Path, trunk: GPT2, labels: tuple[str, ...], **parts: list) -> dict[str, int]:
    """Write weights and token ids for all processes; return the number of tokens in each part."""
    save_trunk(trunk, folder)
    tiny = find_checkpoint("tiny")  # its vocabulary fits in any larger model
    for name in ("vocab.json", "merges.txt"):
        (folder / name).write_bytes((tiny.folder / name).read_bytes())
    texts = {}
    for part, examples in parts.items():
        tokens = tokenize(examples, labels, open_tokenizer(tiny), 256)
        rows = zip(tokens.ids, tokens.labels, strict=True)
        texts[part] = [(ids.tolist(), int(label)) for ids, label in rows]
    (folder / "texts.json").write_text(json.dumps(texts))
    return {part: sum(len(ids) for ids, _ in rows) for part, rows in texts.items()}


def export(cells: list[tuple[str, str]], folder: Path) -> None:
    """Write what the engines read, if one is among the cells."""
    engines = [way for _, way in cells if parts_of(way)[0] in ("onnx", "openvino")]
    if engines:
        in_process("export", "onnx-int8" if "onnx-int8" in engines else "onnx", folder)


def accuracies(ways: list[str], dataset: Dataset, folder: Path) -> dict[str, float]:
    """Return the test accuracy of a head on the vectors of tiny as each way reads them."""
    splits = [split[:HEAD_TEXTS] for split in (dataset.train, dataset.dev, dataset.test)]
    trunk, everything = load_trunk(find_checkpoint("tiny").folder), [e for s in splits for e in s]
    prepare(folder, trunk, dataset.labels, train=[], dev=[], test=everything)
    export([("read", way) for way in ways], folder)
    texts, ends, found = texts_in(folder, "test"), np.cumsum([*map(len, splits[:2])]), {}
    for way in ways:
        if in_process("read", way, folder):
            x = np.load(folder / f"{way}.npy")
            train, dev, test = (
                Vectors(x[part], texts.labels[part], texts.lengths[part])
                for part in np.split(np.arange(len(x)), ends)
            )
            score = torch.nn.Linear(x.shape[1], len(dataset.labels), bias=False)
            fit_head(score, train, dev)
            right = evaluate(score, test).argmax(1) == test.labels
            found[way] = right.double().mean().item()
    return found


def version(package: str) -> str:
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return ""


def print_job(job: str, rows: dict, tokens: int, needed: float | None, rates: dict, more: dict):
    """Print the rows of a job, {way: (seconds, bytes)}, the slowest first, `more` after them."""
    columns = f"{'seconds':>9}{'tokens/s':>10}{'times':>7}{'share':>7}{'MB':>7}"
    print(f"\n{heading(job):42}{columns}" + f"{'difference':>12}{'head':>8}" * bool(more))
    base, _ = rows.get("documented", (None, None))
    for way, (seconds, memory) in sorted(rows.items(), key=lambda row: -row[1][0]):
        name, dtype = parts_of(way)
        rate = f"{tokens / seconds:,.0f}" if tokens else ""
        times = f"{base / seconds:.1f}" if base else ""
        share = ""
        if needed and dtype in rates and name != "warm":
            share = f"{needed / seconds / rates[dtype]:.0%}"
        row = f"    {title(way):38}{seconds:9.2f}{rate:>10}{times:>7}{share:>7}{memory / 1e6:7,.0f}"
        print(row + more.get(way, ""))


def heading(job: str) -> str:
    epochs = EPOCHS.get(job)
    return JOBS[job][0] + (f", {epochs} epoch{'s' * (epochs > 1)}" if epochs else "")


def about_vectors(ways: list[str], heads: dict[str, float], folder: Path) -> dict[str, str]:
    """Return the last two columns of the readers: largest difference, and accuracy of a head."""
    found = {way: np.load(folder / f"{way}.npy") for way in ways}
    cells = {}
    for way, vectors in found.items():
        apart = f"{np.abs(vectors - found['ours']).max():.0e}" if "ours" in found else ""
        cells[way] = f"{apart:>12}" + (f"{heads[way]:8.1%}" if way in heads else "")
    return cells


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--small", action="store_true", help="4 blocks of 256, for a first try")
    parser.add_argument("--data", default="mirrored", help="as of train.py: whose texts are read")
    parser.add_argument("--read", type=int, default=300, help="texts to read and to predict")
    parser.add_argument("--texts", type=int, default=128, help="to train on; for dev, a quarter")
    parser.add_argument("--times", type=int, default=1, help="rounds")
    parser.add_argument("--only", default=",".join(JOBS), help=f"of {','.join(JOBS)}")
    every = ",".join(dict.fromkeys(way for _, ways in JOBS.values() for way in ways))
    parser.add_argument("--ways", default=every, help=f"of {every}")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        job, way, folder = args.worker
        return work(job, way, Path(folder))

    jobs = [job for job in JOBS if job in args.only.split(",")]
    cells = cells_of(jobs, args.ways.split(","))
    if args.small:
        cells = [(j, way) for j, way in cells if j != "predict" and "compiled" not in way]
    config, dataset = SHAPES[args.small], load_dataset(args.data, seed=0)
    some = [dataset.train[i] for i in np.random.default_rng(0).permutation(len(dataset.train))]
    some *= 1 + max(args.read, 2 * args.texts) // len(some)
    dev = some[args.texts : args.texts + args.texts // 4]
    parts = {"train": some[: args.texts], "dev": dev, "test": some[: args.read]}
    rates = {name: matrix_rate(getattr(torch, name)) for name in ("float32", "bfloat16")}

    with tempfile.TemporaryDirectory() as name:
        folder, measured, heads = Path(name, "random"), {cell: [] for cell in cells}, {}
        tokens = prepare(folder, initialize(GPT2(config)), dataset.labels, **parts)
        export(cells, folder)
        time.sleep(3)  # the hash of a file this young would not be remembered
        for round_ in range(args.times):
            for cell in cells:
                measured[cell] += filter(None, [in_process(*cell, folder, round_)])
        readers = [way for job, way in cells if job == "read" and measured[job, way]]
        if not args.small:
            heads = accuracies(readers, dataset, Path(name, "tiny"))
        more = {"read": about_vectors(readers, heads, folder)}

    print(f"{config.n_layer} blocks of {config.n_embd} on {DEVICE}, ", end="")
    print(f"{torch.get_num_threads()} threads; texts of {args.data}, {args.times} rounds")
    print(", ".join(filter(None, map(version, PACKAGES))))
    print(", ".join(f"{name} products: {r / 1e9:,.0f} GFLOP/s" for name, r in rates.items()))
    for job in jobs:
        rows = {
            way: [statistics.median(column) for column in zip(*results, strict=True)]
            for (j, way), results in measured.items()
            if j == job and results
        }
        if not rows:
            continue
        done = EPOCHS.get(job, 1) * tokens["train" if job in EPOCHS else "test"]
        done = {"open": 0, "frozen": 0, "generate": GENERATED}.get(job, done)
        print_job(job, rows, done, operations(job, config, tokens), rates, more.get(job, {}))


if __name__ == "__main__":
    main()
