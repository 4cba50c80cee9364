"""The results of a run: as metrics.json has them, as lines to print, and what they took."""

import contextlib
import itertools
import re
import time
from pathlib import Path

import numpy as np
import torch

from minigpt.checkpoints.find import Checkpoint, describe
from minigpt.classifier import Classifier
from minigpt.data import Tokens
from minigpt.edge.errors import InputError, first_few, one_line
from minigpt.fit import Training
from minigpt.freeze import trainable
from minigpt.metrics import summarize
from minigpt.peft import method_of


class Clock:
    """Seconds by phase."""

    def __init__(self):
        self.start = self.last = time.monotonic()
        self.laps = {"load": 0.0, "frozen": 0.0, "fit": 0.0, "test": 0.0}

    def lap(self, phase: str) -> None:
        """Say that what went on since the last lap was `phase`."""
        now = time.monotonic()
        self.laps[phase] += now - self.last
        self.last = now

    def go_on(self, laps: dict[str, float]) -> None:
        """Add what an earlier process took for the same run."""
        for phase in self.laps:
            self.laps[phase] += laps[phase]
            self.start -= laps[phase]

    def seconds(self) -> dict[str, float]:
        laps = self.laps | {"total": time.monotonic() - self.start}
        return {phase: round(seconds, 3) for phase, seconds in laps.items()}


def introduction(
    checkpoint: Checkpoint, dataset, splits: tuple[Tokens, Tokens, Tokens], max_length: int
) -> str:
    """Return what is about to be read, in lines to print."""
    train, dev, test = map(len, splits)
    lines = [f"{checkpoint.name} on {dataset.name}: {train} texts, {dev} dev, {test} test"]
    lines.append(f"{len(dataset.labels)} classes: {first_few(dataset.labels)}")
    if any(split.truncated for split in splits):
        lines.append(cut_texts(truncated_by_split(splits), max_length))
    return "\n".join(lines)


def truncated_by_split(splits: tuple[Tokens, Tokens, Tokens]) -> dict[str, int]:
    """Return how many texts of each split were longer than the limit."""
    counts = (split.truncated for split in splits)
    return dict(zip(("train", "dev", "test"), counts, strict=True))


def cut_texts(cut: dict[str, int], max_length: int) -> str:
    """Return how many texts were cut, by split, in words."""
    counts = ", ".join(f"{n} of {split}" for split, n in cut.items())
    return f"longer than {max_length} tokens, and cut: {counts}"


def count(model: Classifier) -> dict[str, int]:
    """Return how many parameters are trained, and how many there are."""
    learning = sum(p.numel() for p in trainable(model).values())
    return {"learning": learning, "total": sum(p.numel() for p in model.parameters())}


def table(model: Classifier, added: set[str] = frozenset()) -> str:
    """Return what is trained, as a table to print; equal blocks are on one line.

    The parameters that a tuning method added have a line of their own.
    """
    trunk = model.transformer
    groups = {"embeddings": [], **{f"h.{i}": [] for i in range(len(trunk.h))}, "ln_f": []}
    for name, parameter in trunk.named_parameters():
        part = ".".join(name.split(".")[:2]) if name.startswith("h.") else name.split(".")[0]
        part = "added" if name in added else "embeddings" if part in ("wte", "wpe") else part
        groups.setdefault(part, []).append(parameter)
    groups["score"] = [model.score.weight]
    lines, before = [], None  # a line: [first group, last group, parameters, trainable ones]
    for name, parameters in groups.items():
        sizes = [sum(p.numel() for p in parameters)]
        sizes.append(sum(p.numel() for p in parameters if p.requires_grad))
        if name.startswith("h.") and sizes == before:
            lines[-1] = [lines[-1][0], name, lines[-1][2] + sizes[0], lines[-1][3] + sizes[1]]
        else:
            lines.append([name, name, *sizes])
        before = sizes if name.startswith("h.") else None
    lines.append(["total", "total", *(sum(line[i] for line in lines) for i in (2, 3))])
    text = [f"{'':12}{'parameters':>14}{'trainable':>14}"]
    for first, last, parameters, trained in lines:
        name = first if first == last else f"{first} - {last}"
        text.append(f"{name:12}{parameters:14,}{f'{trained:,}' if trained else 'frozen':>14}")
    return "\n".join(text)


def results(
    settings: dict,
    checkpoint: Checkpoint,
    dataset,
    splits: tuple[Tokens, Tokens, Tokens],  # train, dev, test
    t: Training,
    model,
    added: set[str],
    logits: torch.Tensor,  # of test, (N, K)
) -> dict:
    """Return what metrics.json holds, except for the proof that nothing frozen changed, and times.

    Raises InputError for logits that are not finite, and for weights replaced during the run.
    """
    if not logits.isfinite().all():
        raise InputError("the logits of some test texts are not finite: damaged weights?")
    if describe(checkpoint.name, checkpoint.folder).sha256 != checkpoint.sha256:
        raise InputError(f"{checkpoint.folder} was replaced during the run; train again")
    trunk = model.transformer.named_parameters()
    return {
        "weights": {
            "name": checkpoint.name,
            "sha256": checkpoint.sha256,
            "parameters": sum(p.numel() for name, p in trunk if name not in added),
        },
        "data": {
            "name": dataset.name,
            "labels": dataset.labels,
            **dict(zip(("train", "dev", "test"), map(len, splits), strict=True)),
            "train_lengths": [int(f(splits[0].lengths)) for f in (np.min, np.max)],  # in tokens
            "truncated": sum(split.truncated for split in splits),
            "truncated_by_split": truncated_by_split(splits),
        },
        "freezing": {"policy": policy_name(settings), **count(model)},
        "recipe": settings,
        "dev": results_on_dev(t),
        "test": summarize(logits, dataset.test, dataset.labels),
    }


def results_on_dev(t: Training) -> dict:
    """Return what dev says of the epochs: the last one is kept, whichever was the best."""
    last, best = t.history[-1], max(t.history, key=lambda line: line["dev_accuracy"])
    figures = {"accuracy": last["dev_accuracy"], "epoch": last["epoch"]}
    if "head" in last:  # each line is of the head that was the best by then: not of one
        groups = t.optimizer.param_groups
        return figures | {"weight_decay": groups[last["head"]]["weight_decay"]}
    return figures | {"highest": {"accuracy": best["dev_accuracy"], "epoch": best["epoch"]}}


def rows_of_dev(dev: dict) -> list[tuple[str, str]]:
    """Return (name, value) of what `results_on_dev` returns."""
    line = f"{dev['accuracy']:.1%} after epoch {dev['epoch']} of {dev['epoch']}, which is kept"
    if (highest := dev.get("highest", dev))["accuracy"] > dev["accuracy"]:
        line += f"; {highest['accuracy']:.1%} after epoch {highest['epoch']}"
    rows = [("dev accuracy", line)]
    if "weight_decay" in dev:
        rows.append(("weight decay", f"{dev['weight_decay']:g}, the lowest loss on dev"))
    return rows


def policy_name(settings: dict) -> str:
    """Return what is trained besides the head, as the flags say it."""
    if settings["freeze_trunk"]:
        return "freeze-trunk"
    first = f"warm-head {settings['warm_head']}, " if settings["warm_head"] else ""
    if method := method_of(settings):
        where = f" in-last {settings['in_last']}" if settings["in_last"] else ""
        on = settings["lora_on"]
        layers = f" on {on}" if method == "lora" and on != "c_attn" else ""
        return f"{first}{method} {settings[method]}{layers}{where}"
    if settings["train_last"] is not None:
        return f"{first}train-last {settings['train_last']}"
    return first + (f"train-only {only}" if (only := settings["train_only"]) else "everything")


def run_name(settings: dict, data: str) -> Path:
    """Return where a run goes for which no --out is given: in runs/, named after the choices."""
    names = [Path(settings["weights"]).name, Path(data).stem, policy_name(settings)]
    names += [settings["pool"], "end" * settings["append_end"]]
    return Path("runs", re.sub(r"[^a-zA-Z0-9_.]+", "-", "-".join(filter(None, names)))[:100])


def report(metrics: dict, folder: Path) -> str:
    """Return the results of a run, in a few lines to print."""
    data, freezing = metrics["data"], metrics["freezing"]
    frozen = "unchanged, bit for bit" if freezing["frozen_unchanged"] else "CHANGED: this is a bug"
    if freezing["learning"] == freezing["total"]:
        frozen = "none"
    rows = rows_of_test(metrics["test"], data["labels"])
    if data["truncated"]:
        rows.append(
            ("texts", cut_texts(data["truncated_by_split"], metrics["recipe"]["max_length"]))
        )
    rows += rows_of_dev(metrics["dev"])
    rows += [
        ("trained", f"{freezing['learning']:,} of {freezing['total']:,} parameters"),
        ("frozen tensors", frozen),
        ("time", f"{metrics['seconds']['total']:.1f} s"),
        ("run", str(folder)),
    ]
    return in_columns(rows)


MOST_IN_MATRIX = 10  # classes: a larger confusion matrix is for metrics.json alone
SKEWED = 0.6  # with a larger share of one class, accuracy says little


def rows_of_test(test: dict, labels: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return (name, value) of the figures of a test set, as `summarize` has them.

    The baseline is to always answer the most frequent class. Where that is most of the texts,
    macro-F1 and each class's recall tell more than the accuracy.
    """
    low, high = test["interval"]
    texts = [sum(row) for row in test["confusion"]]
    commonest = labels[texts.index(max(texts))]
    rows = [
        ("test accuracy", f"{test['accuracy']:.1%} (95 % interval {low:.1%} to {high:.1%})"),
        ("baseline", one_line(f"{test['commonest']:.1%} by always answering {commonest!r}")),
    ]
    if test["commonest"] > SKEWED:
        rows.append(("macro-F1", f"{test['macro_f1']:.3f}"))
        names = ("recall", *[""] * len(labels))
        for name, label, recall, n in zip(names, labels, test["recall"], texts, strict=False):
            share = f"{recall:.1%} of {n}" if n else "no texts"
            rows.append((name, f"{share}: {one_line(label)}"))
    if "pairs" in test:
        pairs = test["pairs"]
        rows.append(("pairs in order", f"{pairs['in_order']:.1%} of {pairs['n']}; chance: 50 %"))
    if len(labels) <= MOST_IN_MATRIX:
        rows += rows_of_confusion(test["confusion"], labels)
    return rows


def rows_of_confusion(counts: list[list[int]], labels: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return the confusion matrix, (K, K): a row for each class, a column for each answer."""
    labels = [one_line(label) for label in labels]
    widest = max(len(str(cell)) for cell in [*labels, *itertools.chain(*counts)])
    digits = len(str(max(map(max, counts))))
    width = max(digits, min(widest, 64 // len(labels) - 2))  # in all, 80 characters if they can be
    columns = [cut(label, width) for label in labels]
    if len({*columns}) < len(columns):  # too long, and alike where they begin: numbers instead
        columns = [*range(1, len(labels) + 1)]
        labels = [f"{n} {label}" for n, label in zip(columns, labels, strict=True)]
    lines = [("answered", columns)]
    lines += [(cut(f"of {name}", 14), row) for name, row in zip(labels, counts, strict=True)]
    return [(name, "  ".join(f"{cell:>{width}}" for cell in cells)) for name, cells in lines]


def cut(text: str, width: int) -> str:
    """Return a text that is not longer than `width`."""
    return text if len(text) <= width else text[: width - 1] + "…"


def in_columns(rows: list[tuple[str, str]]) -> str:
    """Return rows as a table to print."""
    return "\n".join(f"{name:16}{value}" for name, value in rows)


def peak_memory() -> int | None:
    """Return the most memory this process ever held, in bytes (None where nobody counts it)."""
    with contextlib.suppress(OSError):  # Linux; getrusage there counts the parent's memory, too
        status = Path("/proc/self/status").read_text()
        if found := re.search(r"VmHWM:\s+(\d+) kB", status):
            return int(found[1]) * 1024
    with contextlib.suppress(ImportError):  # there is none on Windows
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS
    return None
