"""A name -> labelled texts in three splits. Knows nothing of token ids or models."""

import dataclasses
import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from minigpt.checkpoints import from_hub
from minigpt.data import Example
from minigpt.datasets.columns import AS_FOUND, Reading
from minigpt.datasets.formats import ENDINGS, OBJECTS, Note, nothing, read_examples
from minigpt.datasets.given import IN_MEMORY, Given, examples_given
from minigpt.datasets.lines import NOT_TEXT
from minigpt.datasets.tables import layout_of
from minigpt.edge.errors import InputError, first_few

BUNDLED = Path(__file__).parent
SST2 = ("SetFit/sst2", "00ea8ccb7a54b4e3780a3e51aa3f80361ff849c0")  # a Hub dataset, its revision
NAMED = ("mirrored", "sst2")
SPLITS = {
    "train": ("train",),
    "dev": ("dev", "val", "valid", "validation", "development", "eval"),
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


def load_dataset(
    name: str, seed: int, reading: Reading = AS_FOUND, note: Note = nothing
) -> Dataset:
    """Load what --data names, `mirrored`, `sst2`, a file or a folder, or what is given, in splits.

    `note` is told in a line of each guess. Raises InputError for what cannot be learned from.
    """
    splits = read_splits(name, seed, reading, note)
    if not splits.get("dev") and splits.get("train"):
        splits["train"], splits["dev"] = split_off(splits["train"], 0.1, seed)
    for split in SPLITS:
        if not splits.get(split):
            raise InputError(f"--data {name}: no texts for {split}: {too_few(splits)}")
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
    seen = {e.text for e in splits["train"]}
    for split in ("dev", "test"):
        if known := sum(e.text in seen for e in splits[split]):
            of = f"{known} of {len(splits[split])} texts for {split} are in train, too"
            note(f"--data {name}: {of}: accuracy on them says nothing about new ones")
    return Dataset(name, labels, **splits)


def too_few(splits: dict[str, list[Example]]) -> str:
    """Return why a file could not be split, and what to do."""
    examples = [e for split in splits.values() for e in split]
    if any(e.split for e in examples):
        return "the column split names none; leave it out to have the texts split at random"
    if any(e.pair for e in examples):
        pairs = len({e.pair for e in examples} - {""})
        return (
            f"texts with the same value in the column pair stay together, and it has only {pairs} "
            "of them; rename the column, or say in a column split what each text is for"
        )
    return "no label has enough of them; is text in the first column, label after it?"


def read_splits(
    name: str, seed: int, reading: Reading = AS_FOUND, note: Note = nothing
) -> dict[str, list[Example]]:
    """Return the examples of each split; dev may be missing or empty. Raises InputError.

    What is a single file, or in memory, is split 80/10/10 by the seed, each label in the same
    shares, unless it has a column `split`.
    """
    path = Path(name)
    if name == "mirrored":
        return split_of_column(read_examples(BUNDLED / "mirrored.tsv", reading, note), name)
    if name == "sst2":
        files = sst2_files().items()
        return {split: read_examples(file, reading, note) for split, file in files}
    if isinstance(name, Given):
        examples = examples_given(name.data, reading, note)
    elif path.is_dir():
        return read_folder(path, reading, note)
    elif path.is_file():
        examples = read_examples(path, reading, note)
    elif name == IN_MEMORY:  # a run is resumed that was started with texts in memory
        raise InputError(f"the texts were {name}: go on in Python, minigpt.train(data, resume=RUN)")
    else:
        raise InputError(f"--data {name}: no such file; say mirrored, sst2, a file or a folder")
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


def read_folder(folder: Path, reading: Reading, note: Note) -> dict[str, list[Example]]:
    """Read the one file for each split; dev may be missing. Raises InputError.

    If train has no header, what its columns are holds for the others without a header.
    """
    files = files_of_splits(folder, note)
    train = files.pop("train")
    splits = {"train": read_examples(train, reading, note)}
    if train.suffix.lower() not in OBJECTS and train.is_file():
        layout = layout_of(train, reading)
        if layout and not layout.header and not reading.by_number:
            reading = dataclasses.replace(reading, order=layout.names)
    for split, file in files.items():
        splits[split] = read_examples(file, reading, note)
    return splits


def files_of_splits(folder: Path, note: Note) -> dict[str, Path]:
    """Return the file of each split; `note` is told of data files that are for none."""
    others = tuple(ending for endings in NOT_TEXT for ending in endings)
    inside = sorted(f for f in folder.iterdir() if f.suffix.lower() in (*ENDINGS, *others))
    found = {}
    for split, names in SPLITS.items():
        named = [f for name in names for f in inside if f.stem.lower() == name]
        files = sorted(
            (f for f in named if f.suffix.lower() in ENDINGS),
            key=lambda f: ENDINGS.index(f.suffix.lower()),
        )
        if len(files) > 1:
            raise InputError(f"{folder}: {files[0].name} and {files[1].name} are both for {split}")
        if files:
            found[split] = files[0]
        elif split != "dev":
            raise InputError(f"{folder} has no {split}.tsv, .csv or .jsonl")
    unused = [f.name for f in inside if f not in found.values() and f.suffix.lower() != ".txt"]
    if unused:
        note(f"{folder}: not used: {first_few(unused)} (only files for train, dev and test are)")
    return found


def split_of_column(examples: list[Example], name: str) -> dict[str, list[Example]]:
    """Put each example into the split that its column `split` says. Raises InputError."""
    splits = {
        split: [e for e in examples if e.split.strip().lower() in names]
        for split, names in SPLITS.items()
    }
    if sum(map(len, splits.values())) < len(examples):
        used = {id(e) for split in splits.values() for e in split}
        odd = next(e.split for e in examples if id(e) not in used)
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
