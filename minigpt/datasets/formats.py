"""A file of texts and labels -> examples. Knows nothing of splits.

bytes -> lines (lines.py) -> rows (tables.py) or objects (objects.py) -> columns (columns.py) ->
examples, one at a time. `csv` and `json` of the standard library are all that this takes: pandas
reads as much, but guesses without saying so, and would be larger than everything here.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from minigpt.data import Example
from minigpt.datasets.columns import AS_FOUND, Columns, Reading, rating
from minigpt.datasets.lines import refuse_what_is_not_text
from minigpt.datasets.objects import objects
from minigpt.datasets.tables import layout_of, table
from minigpt.edge.errors import InputError

OBJECTS = (".jsonl", ".ndjson", ".json")
ENDINGS = (".tsv", ".csv", ".jsonl", ".json", ".txt", ".tab", ".ndjson")
Note = Callable[[str], None]  # what is told in a line


def nothing(_: str) -> None:
    """Tell nobody."""


def read_examples(path: Path, reading: Reading = AS_FOUND, note: Note = nothing) -> list[Example]:
    """Read a file of texts and labels; docs/data.md lists what is read. Raises InputError.

    Columns `pair`, `kind` and `split` are understood, others ignored. `note` is told of each guess.
    """
    return examples_of(records(path, reading, note), str(path))


def examples_of(rows: Iterable, name: str) -> list[Example]:
    """Check all that `records` yields of what is called `name`. Raises InputError."""
    examples = []
    for where, record, columns in rows:
        if isinstance(record, InputError):
            raise record
        examples.append(example_of(record, columns, where))
    if not examples:
        raise InputError(f"{name} holds no examples")
    labels = {e.label for e in examples}
    if fractions := fractions_among(labels):
        raise rating(name, fractions)
    numbers = all(re.fullmatch(r"-?\d+(\.0*)?", label) for label in labels)
    if numbers and any("." in label for label in labels):  # 4.0: see example_of
        examples = [dataclasses.replace(e, label=str(int(float(e.label)))) for e in examples]
    return examples


def records(
    path: Path,
    reading: Reading = AS_FOUND,
    note: Note = nothing,
    labelled: bool = True,
    longest: int | None = None,
) -> Iterator[tuple[str, dict | InputError, Columns | None]]:
    """Yield (where it is, {column: value}, what its columns are) for each row of a file.

    In place of a bad row there is an InputError, and where reading can go on after it, it does.
    Rows need no label unless they are `labelled`; lines have up to `longest` bytes.
    """
    refuse_what_is_not_text(path)
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise InputError(f"{path}: the name of a data file ends in {', '.join(ENDINGS)}")
    if ending in OBJECTS:
        read = objects(path, reading, labelled, longest)
    else:
        layout = layout_of(path, reading, labelled, longest)
        if layout and layout.said:
            note(f"{path}: {'; '.join(layout.said)}")
        read = table(path, layout, reading, longest) if layout else ()
    told = ending not in OBJECTS  # of a table, all was told above
    for where, record, columns in read:
        if not told and columns and columns.guess:
            note(f"{path}: {columns.guess}")
            told = True
        yield where, record, columns


def text_of(record: dict, columns: Columns, where: str) -> str:
    """Return the text of a record. Raises InputError if it has none."""
    parts = [record.get(name) for name in columns.text]
    if not parts or not all(isinstance(part, str) for part in parts):
        said = f"among {', '.join(map(str, record))[:200] or 'nothing'}; say --text-column NAME"
        raise InputError(f"{where}: no text (a column text, sentence, content) {said}")
    return " ".join(parts)


def example_of(record: dict, columns: Columns, where: str) -> Example:
    """Check one record. A label may be a word, a whole number, or a truth value."""
    text = text_of(record, columns, where)
    label = record.get(columns.label) if columns.label is not None else None
    if type(label) is float and math.isfinite(label):
        if label % 1:
            raise rating(where, [str(label)])
        label = int(label)  # 4.0: some programs write all numbers so
    if type(label) in (int, bool):
        label = str(label)
    if not isinstance(label, str) or not label.strip():
        raise InputError(
            f"{where}: the label is {label!r}, neither a word, a whole number nor true or false; "
            "is it in another column? --label-column NAME"
        )
    extra = {
        name: str(record[column])
        for name, column in columns.extra.items()
        if record.get(column) is not None
    }
    return Example(text, label.strip(), **extra)


def fractions_among(labels: set[str]) -> list[str]:
    """Return the labels that are no whole numbers, if all of them are numbers."""
    fractions = []
    for label in sorted(labels):
        try:
            number = float(label.replace(",", "."))
        except ValueError:
            return []
        if not math.isfinite(number):
            return []
        if number % 1:
            fractions.append(label)
    return fractions
