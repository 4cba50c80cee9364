"""Files -> examples -> splits. Knows nothing of token ids or models."""

import csv
import dataclasses
import io
import json
import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from minigpt.errors import InputError, some
from minigpt.hub import from_hub

BUNDLED = Path(__file__).parent / "datasets"
SST2 = ("SetFit/sst2", "00ea8ccb7a54b4e3780a3e51aa3f80361ff849c0")  # a Hub dataset, its revision
TEXT_COLUMNS = ("text", "sentence", "content")
SPLITS = {
    "train": ("train",),
    "dev": ("dev", "valid", "validation"),
    "test": ("test",),
}


@dataclasses.dataclass(frozen=True)
class Example:
    """One labelled text."""

    text: str
    label: str
    pair: str = ""  # examples of the same pair are twins with opposite labels
    kind: str = ""
    split: str = ""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Labelled texts in three splits, and the classes they fall into."""

    name: str
    labels: tuple[str, ...]  # class k is labels[k]
    train: list[Example]
    dev: list[Example]
    test: list[Example]


def read_examples(path: Path) -> list[Example]:
    """Read a .tsv, .csv or .jsonl file of texts and labels.

    With a header (or keys) `text`, `sentence` or `content`, and `label`; columns `pair`, `kind`
    and `split` are understood, others ignored. Without a header: two columns, text and label.
    Raises InputError, naming file and line.
    """
    readers = {".tsv": read_tsv, ".csv": read_csv, ".jsonl": read_jsonl}
    if path.suffix not in readers:
        raise InputError(f"{path}: the name of a data file ends in {', '.join(readers)}")
    try:
        content = path.read_bytes().decode("utf-8-sig")  # -sig: without a byte-order mark
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{path}, line {line}: not UTF-8; convert the file to UTF-8") from None
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    examples = [
        example_of(row, f"{path}, line {line}") for line, row in readers[path.suffix](content, path)
    ]
    if not examples:
        raise InputError(f"{path} holds no examples")
    return examples


def read_tsv(content: str, path: Path):
    """Yield (line number, {column: value}): no quoting, a tab is a tab and a quote a quote."""
    lines = content.replace("\r\n", "\n").split("\n")
    rows = ((i, line.split("\t")) for i, line in enumerate(lines, 1) if line.strip())
    yield from by_column(rows, path)


def read_csv(content: str, path: Path):
    """Yield the same from comma-separated values, quoted as RFC 4180 has it."""
    csv.field_size_limit(2**31 - 1)  # a text may be long
    reader = csv.reader(io.StringIO(content, newline=""), strict=True)
    try:
        yield from by_column(((reader.line_num, row) for row in reader if row), path)
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}") from None


def read_jsonl(content: str, path: Path):
    """Yield the same from a JSON object on each line."""
    for i, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}, line {i}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {i}: not an object with text and label")
        yield i, row


def by_column(rows, path: Path):
    """Give each value the name of its column, from the header if there is one."""
    columns = None
    for line, row in rows:
        if columns is None:
            columns = [name.strip().lower() for name in row]
            if "label" in columns:
                continue
            columns = ["text", "label"]
            if len(row) != 2:
                raise InputError(
                    f"{path}: neither a header with {'|'.join(TEXT_COLUMNS)} and label, nor two "
                    f"columns (text, label) without a header"
                )
        if len(row) != len(columns):
            raise InputError(f"{path}, line {line}: {len(row)} columns instead of {len(columns)}")
        yield line, dict(zip(columns, row, strict=True))


def example_of(row: dict, where: str) -> Example:
    """Check one row. A label may be a word or a whole number."""
    text = next((row[name] for name in TEXT_COLUMNS if name in row), None)
    if not isinstance(text, str):
        raise InputError(f"{where}: no text (a column {', '.join(TEXT_COLUMNS)})")
    label = row.get("label")
    if type(label) is int:
        label = str(label)
    if not isinstance(label, str) or not label.strip():
        raise InputError(f"{where}: the label is {label!r}, neither a word nor a whole number")
    extra = {n: str(row[n]) for n in ("pair", "kind", "split") if row.get(n) is not None}
    return Example(text, label.strip(), **extra)


def load_dataset(name: str, seed: int) -> Dataset:
    """Load `mirrored`, `sst2`, a file or a folder, as --data names it, in three splits.

    A single file is split 80/10/10 by the seed, each label in the same shares, unless it has a
    column `split`. A folder without a dev file gives a tenth of train for it. Raises InputError.
    """
    path = Path(name)
    if name == "mirrored":
        splits = split_of_column(read_examples(BUNDLED / "mirrored.tsv"), name)
    elif name == "sst2":
        splits = {split: read_examples(file) for split, file in sst2_files().items()}
    elif path.is_dir():
        splits = read_folder(path)
    elif path.is_file():
        examples = read_examples(path)
        if any(e.split for e in examples):
            splits = split_of_column(examples, name)
        else:
            rest, test = split_off(examples, 0.1, seed)
            train, dev = split_off(rest, 1 / 9, seed)
            splits = {"train": train, "dev": dev, "test": test}
    else:
        raise InputError(f"--data {name}: no such file; or say mirrored, sst2, or a folder")
    if not splits.get("dev") and splits.get("train"):
        splits["train"], splits["dev"] = split_off(splits["train"], 0.1, seed)
    for split in SPLITS:
        if not splits.get(split):
            raise InputError(f"--data {name}: no texts for {split}; more texts are needed")
    labels = label_names(splits["train"])
    if len(labels) < 2:
        raise InputError(f"--data {name}: all of train has the label {labels[0]}; two are needed")
    for split, examples in splits.items():
        if unknown := {e.label for e in examples} - {*labels}:
            raise InputError(
                f"--data {name}: {split} has the label {some(sorted(unknown))}, which train never "
                f"shows (its labels: {some(labels)}); is text in the first column, label after it?"
            )
    return Dataset(name, labels, **splits)


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

    Twins, where there are any, stay together.
    """
    twins = defaultdict(list)
    for i, example in enumerate(examples):
        twins[example.pair or i].append(i)
    alike = defaultdict(list)
    for rows in twins.values():
        alike[tuple(sorted(examples[i].label for i in rows))].append(rows)
    random, chosen = np.random.default_rng(seed), set()
    for _, groups in sorted(alike.items()):
        for i in random.permutation(len(groups))[: round(share * len(groups))]:
            chosen.update(groups[i])
    rest = [e for i, e in enumerate(examples) if i not in chosen]
    return rest, [examples[i] for i in sorted(chosen)]


def sst2_files() -> dict[str, Path]:
    """Download SST-2 from the Hub, once, at a pinned revision; return its three files."""
    files = {split: f"{split}.jsonl" for split in SPLITS}
    folder = from_hub(SST2[0], tuple(files.values()), SST2[1], kind="dataset")
    return {split: folder / file for split, file in files.items()}
