"""Experiment 7 of `explain`: must the trunk be trained, too, and how much of it?

Each rung of the ladder is what `train.py` does with these flags; its logits are stored.
"""

import dataclasses
import math
import shlex

import numpy as np
import torch
from tqdm import tqdm

from minigpt.cli.train_flags import parse, settle
from minigpt.data import Tokens
from minigpt.explain import figures
from minigpt.explain.accuracy import accuracy_of, accuracy_table, percent
from minigpt.explain.study import Study, sample
from minigpt.fast import precompute, stored
from minigpt.fit import evaluate
from minigpt.freeze import freeze, names_to_train, trainable
from minigpt.runs import build, tune

QUESTION = "Must the trunk be trained, too, and how much of it?"
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
CURVES = ("head", "last_1")  # rungs that are trained on fewer texts, too
SIZES, SAMPLES = (10, 30, 100, 300), 3  # texts, and samples of each size
STEPS = 50  # of gradient descent, at least: four epochs of ten texts would be four
FORMAT = 2  # of stored logits: increase it when training gives other results


def train_and_test(study: Study, flags: str, train: Tokens) -> tuple[int, torch.Tensor]:
    """Train with these flags of train.py; return the number of trainable parameters and the logits
    of test (N, K).
    """
    typed = parse("", [*shlex.split(flags), f"--device={study.device}", "--dtype=float32"])
    torch.manual_seed(typed.seed)
    settings = settle(typed, study.checkpoint, len(train))
    model, added = build(study.checkpoint, settings, len(study.labels), settings["dropout"])
    policy = (typed.freeze_trunk, typed.train_last, typed.train_only)
    names = added or names_to_train(model.transformer, *policy)
    freeze(model.to(study.device), names)
    splits = (train, study.tokens["dev"], study.tokens["test"])
    texts = [shortened(split, settings["max_length"]) for split in splits]

    def logits():
        torch.manual_seed(typed.seed)
        tune(model, names, *texts[:2], settings, study.checkpoint)
        computed = precompute(model, texts[2], study.checkpoint)
        yield evaluate(model.score if typed.freeze_trunk else model, computed).numpy()

    made_of = {
        "ladder": FORMAT,
        "settings": settings,
        "texts": [study.depends_on(t) | {"labels": t.labels.tolist()} for t in texts],
        "torch": torch.__version__,
    }
    title = f"test logits of {study.checkpoint.name}, {flags}, {len(train)} texts"
    array = stored(made_of, title, (len(texts[2]), len(study.labels)), "<f4", logits)
    return sum(p.numel() for p in trainable(model).values()), torch.tensor(array)


def shortened(texts: Tokens, most: int) -> Tokens:
    """Return texts cut to so many tokens: what is put before them takes its room."""
    return dataclasses.replace(texts, ids=[ids[:most] for ids in texts.ids])


def measure(study: Study) -> dict:
    """Train more and more of the parameters; and some rungs on fewer texts."""
    train, rungs = study.tokens["train"], {}
    sizes = [n for n in SIZES if n < len(train)]
    jobs = len(RUNGS) + len(CURVES) * len(sizes) * SAMPLES
    with tqdm(total=jobs, desc="ladder", disable=study.quiet or None, leave=False) as bar:
        for key, (title, flags) in RUNGS.items():
            trainable, logits = train_and_test(study, flags, train)
            accuracy = accuracy_of(logits, study.examples("test"), study.labels, study.seed)
            rungs[key] = {"title": title, "flags": flags, "learning": trainable} | accuracy
            bar.update()
        curves = {key: [with_few_texts(study, key, n, bar) for n in sizes] for key in CURVES}
    for key, points in curves.items():
        points.append({"texts": len(train), "accuracy": rungs[key]["accuracy"]})
    head, best = rungs["head"], max(rungs.values(), key=lambda row: row["accuracy"])
    gain = 100 * (best["accuracy"] - head["accuracy"])
    overlapping = [row for row in rungs.values() if row["interval"][1] >= best["accuracy"]]
    fewest = min(overlapping, key=lambda row: row["learning"])
    return {
        "question": QUESTION,
        "headline": f"A head on a frozen trunk: {percent(head['accuracy'], 0)}; training more "
        f"adds at most {gain:.0f} points",
        "finding": f"The head alone has an accuracy of {percent(head['accuracy'])}. The highest is "
        f"{percent(best['accuracy'])} ({best['title']}), {gain:.1f} points more. The fewest "
        f"trainable parameters whose interval includes it are {fewest['learning']:,} "
        f"({fewest['title']}, {percent(fewest['accuracy'])}).",
        "chance": study.chance,
        "table": table_with_parameters(rungs),
        "rungs": rungs,
        "curves": curves,
        "draws": SAMPLES,
        "dev": len(study.tokens["dev"]),
    }


def with_few_texts(study: Study, key: str, n: int, bar) -> dict:
    """Return the accuracy of a rung trained on `n` texts: the mean of samples, and their range."""
    accuracies, flags = [], RUNGS[key][1]
    if key != "head":
        epochs = max(4, math.ceil(STEPS / math.ceil(n / 32)))
        flags += f" --epochs {epochs}"
    for seed in range(SAMPLES):
        _, logits = train_and_test(study, flags, few_texts(study, n, seed))
        correct = logits.argmax(1) == study.classes["test"]
        accuracies.append(correct.double().mean().item())
        bar.update()
    mean = float(np.mean(accuracies))
    return {"texts": n, "accuracy": mean, "range": [min(accuracies), max(accuracies)]}


def few_texts(study: Study, n: int, seed: int) -> Tokens:
    """Return about `n` texts of train: whole pairs, labels in the same proportions."""
    chosen = {id(e) for e in sample(study.examples("train"), n, seed)}
    indices = [i for i, e in enumerate(study.examples("train")) if id(e) in chosen]
    texts = study.tokens["train"]
    return Tokens([texts.ids[i] for i in indices], texts.labels[torch.tensor(indices)])


def table_with_parameters(rungs: dict) -> dict:
    """Return the table of the rungs, with their trainable parameters."""
    table = accuracy_table("trained", {row["title"]: row for row in rungs.values()})
    table["columns"].insert(1, "trainable parameters")
    for cells, row in zip(table["rows"], rungs.values(), strict=True):
        cells.insert(1, f"{row['learning']:,}")
    return table


def draw(result: dict):
    """Draw accuracy over the number of trainable parameters, and over that of labelled texts."""
    figure, (top, below) = figures.canvas(8.4, rows=2, gridspec_kw={"height_ratios": [3, 2]})
    draw_rungs(top, sorted(result["rungs"].values(), key=lambda row: row["learning"]))
    draw_curves(below, result)
    for axes in (top, below):
        figures.reference_line(axes, result["chance"], "chance")
        figures.percent_axis(axes.yaxis)
        axes.set_ylabel("test accuracy")
    figures.title(figure, result)
    return figure


def draw_rungs(axes, rungs: list[dict]) -> None:
    """Draw each rung: accuracy over trainable parameters."""
    axes.set_xscale("log")
    last = place = 0.0  # of a point; and of its name, which moves aside where points are close
    for row in rungs:
        again = row["learning"] == last  # a second point there is hollow, and its name says so
        last = row["learning"]
        place = max(last, 1.3 * place)
        colour = figures.RED if row["flags"] == "--freeze-trunk" else figures.BLUE
        low, high = row["interval"]
        axes.vlines(last, low, high, colour, lw=2, ls=":" if again else "-")
        mark, fill = ("D", "none") if again else ("o", colour)
        axes.plot(last, row["accuracy"], mark, color=colour, mfc=fill, ms=8, mew=1.5)
        axes.annotate(
            f"◇ {row['title']}" if again else row["title"], (place, low), (0, -6),
            textcoords="offset points", rotation=90, ha="center", va="top", fontsize=10,
        )  # fmt: skip
    axes.set_xlabel("trainable parameters")
    axes.margins(x=0.08, y=0.06)


def draw_curves(axes, result: dict) -> None:
    """Draw accuracy over the number of labelled texts."""
    colours = (figures.RED, figures.BLUE, figures.GREEN)
    for (key, points), colour, mark in zip(result["curves"].items(), colours, "oDs", strict=False):
        x = [point["texts"] for point in points]
        title = result["rungs"][key]["title"]
        figures.line(axes, x, points, colour, mark, title, "range")
    axes.set_xscale("log")
    axes.set_xticks(x, x)
    axes.minorticks_off()
    axes.set_xlabel(f"labelled texts to train on, besides the {result['dev']} of dev")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 0.12))
