"""Experiment 8 of `explain`: must the trunk be trained, too, and how much of it?

Each rung of the ladder is what `train.py` does with these flags; its logits are stored.
"""

import dataclasses
import itertools
import math
import shlex

import numpy as np
import torch

from minigpt.cli.train_flags import parse
from minigpt.cli.train_settings import settle
from minigpt.data import Tokens
from minigpt.explain import figures
from minigpt.explain.accuracy import accuracy_table, percent, range_of
from minigpt.explain.study import Study, code_of_heads, part_of, sample
from minigpt.fast import precompute, stored
from minigpt.fit import evaluate
from minigpt.freeze import freeze, names_to_train, trainable
from minigpt.runs import build, tune

QUESTION = "Must the trunk be trained, too, and how much of it?"
EPOCHS = 3  # where the trunk is trained, so that all of it takes minutes
RUNGS = {
    "head": ("the head only", "--freeze-trunk"),
    "last_1": ("the last block", f"--epochs {EPOCHS} --train-last 1"),
    "prompt": ("a prompt of 16", f"--epochs {EPOCHS} --prompt 16"),
    "prefix": ("a prefix of 16", f"--epochs {EPOCHS} --prefix 16"),
    "lora": ("LoRA, rank 8", f"--epochs {EPOCHS} --lora 8"),
    "adapter": ("adapters of 16", f"--epochs {EPOCHS} --adapter 16"),
    "all": ("everything", f"--epochs {EPOCHS}"),
    "lp_ft": ("the head, then everything", f"--epochs {EPOCHS} --warm-head 20"),
}
CURVES = ("head", "last_1")  # rungs that are trained on fewer texts, too
SIZES, SAMPLES = (10, 30, 100, 300), 3  # texts, and samples of each size
STEPS = 50  # of gradient descent, at least: three epochs of ten texts would be three
FORMAT = 4  # of stored logits: increase it when training gives other results


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
        "code": code_of_heads(),
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
    train = study.tokens["train"]
    sizes = [n for n in SIZES if n < len(train)]
    jobs = {key: (flags, train) for key, (_, flags) in RUNGS.items()}
    for key, n, seed in itertools.product(CURVES, sizes, range(SAMPLES)):
        jobs[key, n, seed] = flags_for_few(key, n), few_texts(study, n, seed)

    def job(work: tuple[str, Tokens]) -> tuple[int, np.ndarray]:
        trainable, logits = train_and_test(study, *work)
        return trainable, logits.numpy()

    done = dict(zip(jobs, study.each(job, [*jobs.values()], "ladder"), strict=True))
    logits = {key: torch.from_numpy(x) for key, (_, x) in done.items()}
    accuracy = {key: study.accuracy(x) for key, x in logits.items()}
    rungs = {
        key: {"title": title, "flags": flags, "learning": done[key][0]} | accuracy[key]
        for key, (title, flags) in RUNGS.items()
    }
    best = max(rungs, key=lambda key: rungs[key]["accuracy"])
    for key, row in rungs.items():
        for other, name in (("head", "against"), (best, "against_best")):
            if key != other:
                row[name] = study.difference(logits[key], logits[other])
    curves = {key: [] for key in CURVES}
    for key, n in itertools.product(CURVES, sizes):
        samples = [accuracy[key, n, seed] for seed in range(SAMPLES)]
        curves[key].append({"texts": n} | range_of(samples, "samples"))
    for key, points in curves.items():
        points.append({"texts": len(train), "accuracy": rungs[key]["accuracy"]})
    return words_and_table(rungs, best) | {
        "question": QUESTION,
        "chance": study.chance,
        "rungs": rungs,
        "best": rungs[best],
        "curves": curves,
        "draws": SAMPLES,
        "dev": len(study.tokens["dev"]),
        "epochs": EPOCHS,
    }


def words_and_table(rungs: dict, best: str) -> dict:
    """Return the headline, the finding and the table."""
    head, top = rungs["head"], rungs[best]
    equal = [
        row for key, row in rungs.items() if key == best or row["against_best"]["interval"][1] >= 0
    ]
    fewest = min(equal, key=lambda row: row["learning"])
    gain = top["against"]["words"] if best != "head" else "the head itself"
    behind = f": {fewest['against_best']['words']}" if fewest is not top else ""
    return {
        "headline": f"A head on a frozen trunk: {percent(head['accuracy'], 0)}; the best "
        f"of {len(rungs)} has {100 * (top['accuracy'] - head['accuracy']):.0f} points more",
        "finding": f"The head alone has an accuracy of {percent(head['accuracy'])}. The highest is "
        f"{percent(top['accuracy'])} ({top['title']}), {gain}. The fewest trainable parameters "
        f"that are not distinguishable from it are {fewest['learning']:,} ({fewest['title']}, "
        f"{percent(fewest['accuracy'])}{behind}). The highest of {len(rungs)} is flattered by "
        "having been chosen on test.",
        "table": table_with_parameters(rungs),
        "fewest": fewest,
    }


def flags_for_few(key: str, n: int) -> str:
    """Return the flags of a rung that is trained on `n` texts."""
    flags = RUNGS[key][1]
    if key != "head":
        epochs = max(EPOCHS, math.ceil(STEPS / math.ceil(n / 32)))
        flags += f" --epochs {epochs}"
    return flags


def few_texts(study: Study, n: int, seed: int) -> Tokens:
    """Return about `n` texts of train: whole pairs, labels in the same proportions."""
    chosen = {id(e) for e in sample(study.examples("train"), n, seed)}
    indices = [i for i, e in enumerate(study.examples("train")) if id(e) in chosen]
    return part_of(study.tokens["train"], indices)


def table_with_parameters(rungs: dict) -> dict:
    """Return the table of the rungs, with their trainable parameters."""
    table = accuracy_table("trained", {row["title"]: row for row in rungs.values()}, "the head")
    table["columns"].insert(1, "trainable parameters")
    for cells, row in zip(table["rows"], rungs.values(), strict=True):
        cells.insert(1, f"{row['learning']:,}")
    return table


def draw(result: dict):
    """Draw the accuracy of each rung, and accuracy over the number of labelled texts."""
    figure, (top, below) = figures.canvas(8.4, rows=2, gridspec_kw={"height_ratios": [3, 2]})
    draw_rungs(top, sorted(result["rungs"].values(), key=lambda row: row["learning"]))
    top.axvline(result["chance"], color=figures.INK, ls=figures.DASHES, lw=1)
    draw_curves(below, result)
    figures.chance_line(below, result["chance"])
    figures.percent_axis(below.yaxis)
    below.set_ylabel("test accuracy")
    figures.title(figure, result)
    return figure


def draw_rungs(axes, rungs: list[dict]) -> None:
    """Draw a row for each rung: its accuracy, with its interval."""
    for i, row in enumerate(rungs):
        colour = figures.RED if row["flags"] == "--freeze-trunk" else figures.BLUE
        axes.hlines(i, *row["interval"], colour, lw=2)
        axes.plot(row["accuracy"], i, "o", color=colour, ms=8)
    names = [f"{row['title']}\n{row['learning']:,} parameters" for row in rungs]
    axes.set_yticks(range(len(rungs)), names)
    axes.invert_yaxis()
    axes.set_xlabel("test accuracy, and its 95 % interval; dashed: chance")
    figures.percent_axis(axes.xaxis)


def draw_curves(axes, result: dict) -> None:
    """Draw accuracy over the number of labelled texts."""
    colours = (figures.RED, figures.BLUE, figures.GREEN)
    for (key, points), colour, mark in zip(result["curves"].items(), colours, "oDs", strict=False):
        x = [point["texts"] for point in points]
        title = result["rungs"][key]["title"]
        figures.line(axes, x, points, colour, mark, title, "accuracy_range")
    axes.set_xscale("log")
    axes.set_xticks(x, x)
    axes.minorticks_off()
    axes.set_xlabel(f"labelled texts to train on, besides the {result['dev']} of dev")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 0.12))
