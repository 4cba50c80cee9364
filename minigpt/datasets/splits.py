"""A name -> labelled texts in three splits. Knows nothing of token ids or models."""

import dataclasses
import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from minigpt.checkpoints import from_hub
from minigpt.data import Example
from minigpt.datasets.formats import read_examples
from minigpt.edge.errors import InputError, first_few

BUNDLED = Path(__file__).parent
SST2 = ("SetFit/sst2", "00ea8ccb7a54b4e3780a3e51aa3f80361ff849c0")  # a Hub dataset, its revision
NAMED = ("mirrored", "sst2")
SPLITS = {
    "train": ("train",),
    "dev": ("dev", "valid", "validation"),
    "test": ("test",),
}


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Labelled texts in three splits, and the classes they fall into."""

    name: str
    labels: tuple[str, ...]  # class k is labels[k]
    train: list[Example]
    dev: list[Example]
    test: list[Example]


def load_dataset(name: str, seed: int) -> Dataset:
    """Load what --data names, `mirrored`, `sst2`, a file or a folder, in three splits.

    Raises InputError for what cannot be learned from.
    """
    splits = read_splits(name, seed)
    if not splits.get("dev") and splits.get("train"):
        splits["train"], splits["dev"] = split_off(splits["train"], 0.1, seed)
    for split in SPLITS:
        if not splits.get(split):
            raise InputError(
                f"--data {name}: no texts for {split}: no label has enough of them; is text in the "
                f"first column, label after it?"
            )
    if not any(e.text.strip() for e in splits["train"]):
        raise InputError(f"--data {name}: all texts are empty; is text in the first column?")
    labels = label_names(splits["train"])
    if len(labels) < 2:
        raise InputError(f"--data {name}: all of train has the label {labels[0]}; two are needed")
    for split, examples in splits.items():
        if unknown := {e.label for e in examples} - {*labels}:
            raise InputError(
                f"--data {name}: {split} has the label {first_few(sorted(unknown))}, which train "
                f"does not have (its labels: {first_few(labels)}); is text in the first column?"
            )
    return Dataset(name, labels, **splits)


def read_splits(name: str, seed: int) -> dict[str, list[Example]]:
    """Return the examples of each split; dev may be missing or empty. Raises InputError.

    A single file is split 80/10/10 by the seed, each label in the same shares, unless it has a
    column `split`.
    """
    path = Path(name)
    if name == "mirrored":
        return split_of_column(read_examples(BUNDLED / "mirrored.tsv"), name)
    if name == "sst2":
        return {split: read_examples(file) for split, file in sst2_files().items()}
    if path.is_dir():
        return read_folder(path)
    if not path.is_file():
        raise InputError(f"--data {name}: no such file; say mirrored, sst2, a file or a folder")
    examples = read_examples(path)
    if any(e.split for e in examples):
        return split_of_column(examples, name)
    rest, test = split_off(examples, 0.1, seed)
    train, dev = split_off(rest, 1 / 9, seed)
    return {"train": train, "dev": dev, "test": test}


def label_names(examples: list[Example]) -> tuple[str, ...]:
    """Return the labels in order: numbers by value, words by the alphabet."""
    labels = {e.label for e in examples}
    numbers = all(re.fullmatch(r"-?\d{1,18}", label) for label in labels)
    return tuple(sorted(labels, key=(lambda label: (int(label), label)) if numbers else None))


def read_folder(folder: Path) -> dict[str, list[Example]]:
    """Read the one file for each split; dev may be missing. Raises InputError."""
    splits = {}
    for split, names in SPLITS.items():
        files = [
            f for n in names for s in (".tsv", ".csv", ".jsonl") if (f := folder / (n + s)).exists()
        ]
        if len(files) > 1:
            raise InputError(f"{folder}: {files[0].name} and {files[1].name} are both for {split}")
        if files:
            splits[split] = read_examples(files[0])
        elif split != "dev":
            raise InputError(f"{folder} has no {split}.tsv, .csv or .jsonl")
    return splits


def split_of_column(examples: list[Example], name: str) -> dict[str, list[Example]]:
    """Put each example into the split that its column `split` says. Raises InputError."""
    splits = {split: [e for e in examples if e.split in names] for split, names in SPLITS.items()}
    if sum(map(len, splits.values())) < len(examples):
        odd = next(e.split for e in examples if not any(e.split in n for n in SPLITS.values()))
        raise InputError(f"--data {name}: split is {odd!r}, not train, dev or test")
    return splits


def split_off(examples: list[Example], share: float, seed: int):
    """Cut the same share off each label, at random by the seed; return (the rest, the share).

    Examples of the same pair stay together, however many there are: they are too much alike for
    one to test what was learned from the other.
    """
    together = defaultdict(list)
    for i, example in enumerate(examples):
        together[example.pair or i].append(i)
    strata = defaultdict(list)  # by their labels: [the indices that stay together, ...]
    for indices in together.values():
        strata[tuple(sorted(examples[i].label for i in indices))].append(indices)
    random, chosen = np.random.default_rng(seed), set()
    for _, groups in sorted(strata.items()):
        for i in random.permutation(len(groups))[: round(share * len(groups))]:
            chosen.update(groups[i])
    rest = [e for i, e in enumerate(examples) if i not in chosen]
    return rest, [examples[i] for i in sorted(chosen)]


def sst2_files() -> dict[str, Path]:
    """Download SST-2 from the Hub, once, at a pinned revision; return its three files."""
    files = {split: f"{split}.jsonl" for split in SPLITS}
    folder = from_hub(SST2[0], tuple(files.values()), SST2[1], kind="dataset")
    return {split: folder / file for split, file in files.items()}
