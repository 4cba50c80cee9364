"""Jointly or not: every way to tune, from the head alone to everything, on the same texts.

Each rung is what `train.py` does with these flags; outcomes are kept from run to run.
"""

import dataclasses
import math
import shlex

import numpy as np
import torch
from tqdm import tqdm

from minigpt.classifier import Classifier
from minigpt.cli.choices import parse, settle
from minigpt.data import Tokens
from minigpt.explain.bench import Bench, sample
from minigpt.explain.findings import percent, table
from minigpt.explain.probes import judge
from minigpt.explain.states import kept
from minigpt.fast.frozen import keep
from minigpt.fit import evaluate
from minigpt.freeze import count, freeze, names_to_learn
from minigpt.peft.methods import put_on
from minigpt.runs.tune import tune
from minigpt.weights import load_trunk

RUNGS = {
    "head": ("the head only", "--freeze-trunk"),
    "last_1": ("the last block", "--epochs 4 --train-last 1"),
    "prompt": ("a prompt of 16", "--epochs 4 --prompt 16"),
    "prefix": ("a prefix of 16", "--epochs 4 --prefix 16"),
    "lora": ("LoRA, rank 8", "--epochs 4 --lora 8"),
    "adapter": ("adapters of 16", "--epochs 4 --adapter 16"),
    "all": ("everything", "--epochs 4"),
    "lp_ft": ("the head, then everything", "--epochs 4 --warm-head 20"),
}
CURVES = ("head", "last_1")  # those that are also shown fewer texts
SIZES, DRAWS = (10, 30, 100, 300), 3  # texts, and samples of each size
STEPS = 50  # of gradient descent, at least: four epochs of ten texts would be four
FORMAT = 1  # of an outcome that is kept: raise it when training comes to something else


def outcome(bench: Bench, flags: str, train: Tokens) -> tuple[int, torch.Tensor]:  # -> ..., (N, K)
    """Return how many numbers learn with these flags of train.py, and what test then scores."""
    args = parse("", [*shlex.split(flags), "--quiet"])
    torch.manual_seed(args.seed)
    trunk = load_trunk(bench.checkpoint.folder, args.dropout)
    added = put_on(trunk, vars(args))
    learn = added or names_to_learn(trunk, args.freeze_trunk, args.train_last, args.train_only)
    vectors = not added and all(trunk.get_parameter(name).dim() < 2 for name in learn)
    settle(args, bench.checkpoint, vectors, len(train))
    texts = [
        shortened(t, args.max_length) for t in (train, bench.tokens["dev"], bench.tokens["test"])
    ]
    model = Classifier(trunk, len(bench.labels), args.pool).to(bench.device)
    freeze(model, learn)
    about = {
        "outcome": FORMAT,
        "flags": vars(args),
        "texts": [bench.about(t) | {"labels": t.labels.tolist()} for t in texts],
        "torch": torch.__version__,
    }
    title = f"test scores of {bench.checkpoint.name}, {flags or 'everything'}, {len(train)} texts"
    shape = len(texts[2]), len(bench.labels)
    logits = kept(
        about, title, shape, lambda: [trained(model, args, learn, texts, bench.checkpoint)]
    )
    return count(model)["learning"], torch.tensor(logits)


def trained(model: Classifier, args, learn: set, texts: list, checkpoint) -> np.ndarray:  # (N, K)
    """Train as train.py does; return what the last of three sets of texts then scores."""
    torch.manual_seed(args.seed)
    tune(model, learn, *texts[:2], args, checkpoint)
    return evaluate(model, keep(model, texts[2], checkpoint)).numpy()


def shortened(texts: Tokens, most: int) -> Tokens:
    """Return texts cut to so many tokens: what is put before them takes its room."""
    return dataclasses.replace(texts, ids=[ids[:most] for ids in texts.ids])


def ladder(bench: Bench) -> dict:
    """Let more and more learn along; and show some of them fewer texts."""
    train, found = bench.tokens["train"], {}
    sizes = [n for n in SIZES if n < len(train)]
    jobs = len(RUNGS) + len(CURVES) * len(sizes) * DRAWS
    with tqdm(total=jobs, desc="ladder", disable=bench.quiet or None, leave=False) as bar:
        for key, (title, flags) in RUNGS.items():
            learning, logits = outcome(bench, flags, train)
            figures = judge(logits, bench.examples("test"), bench.labels, bench.seed)
            found[key] = {"title": title, "flags": flags, "learning": learning} | figures
            bar.update()
        curves = {key: [with_few(bench, key, n, bar) for n in sizes] for key in CURVES}
    for key, points in curves.items():
        points.append({"texts": len(train), "accuracy": found[key]["accuracy"]})
    head, best = found["head"], max(found.values(), key=lambda row: row["accuracy"])
    gain = 100 * (best["accuracy"] - head["accuracy"])
    within = [row for row in found.values() if row["interval"][1] >= best["accuracy"]]
    least = min(within, key=lambda row: row["learning"])
    return {
        "question": "Must the trunk learn along, and how much of it?",
        "headline": f"A head on a frozen trunk gets {percent(head['accuracy'], 0)}; tuning adds "
        f"{gain:.0f} points at most",
        "finding": f"The head alone gets {percent(head['accuracy'])}. The most is "
        f"{percent(best['accuracy'])} ({best['title']}): {gain:.1f} points more. The fewest "
        f"numbers whose interval reaches as far: "
        f"{least['learning']:,} ({least['title']}, {percent(least['accuracy'])}).",
        "chance": bench.chance,
        "table": with_counts(found),
        "rungs": found,
        "curves": curves,
        "draws": DRAWS,
        "dev": len(bench.tokens["dev"]),
    }


def with_few(bench: Bench, key: str, n: int, bar) -> dict:
    """Return the accuracy of a rung after `n` texts: the mean of some samples, and their range."""
    right, flags = [], RUNGS[key][1]
    if key != "head":
        epochs = max(4, math.ceil(STEPS / math.ceil(n / 32)))
        flags += f" --epochs {epochs}"
    for draw in range(DRAWS):
        _, logits = outcome(bench, flags, few_texts(bench, n, draw))
        right.append((logits.argmax(1) == bench.classes["test"]).double().mean().item())
        bar.update()
    return {"texts": n, "accuracy": float(np.mean(right)), "range": [min(right), max(right)]}


def with_counts(found: dict) -> dict:
    """Return the table of the rungs, with how many numbers learn."""
    cells = table("what learns", {row["title"]: row for row in found.values()})
    cells["columns"].insert(1, "numbers that learn")
    for line, row in zip(cells["rows"], found.values(), strict=True):
        line.insert(1, f"{row['learning']:,}")
    return cells


def few_texts(bench: Bench, n: int, draw: int) -> Tokens:
    """Return about `n` texts of train, by `draw`: twins together, labels in the same shares."""
    chosen = {id(e) for e in sample(bench.examples("train"), n, draw)}
    rows = [i for i, e in enumerate(bench.examples("train")) if id(e) in chosen]
    texts = bench.tokens["train"]
    return Tokens([texts.ids[i] for i in rows], texts.labels[torch.tensor(rows)])
