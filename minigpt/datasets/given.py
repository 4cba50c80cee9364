"""Texts that are in memory already, from Python: (texts, labels), or a data frame.

Knows no library of frames: what has `columns`, and under each of their names a column, is one.
"""

from collections.abc import Iterator

from minigpt.data import Example
from minigpt.datasets.columns import Columns, Reading, find_columns
from minigpt.datasets.formats import Note, examples_of
from minigpt.edge.errors import InputError

IN_MEMORY = "in memory"
WANTED = "a name that --data takes, (texts, labels), or a data frame with columns text and label"


class Given(str):
    """What stands where --data has a name, if the data is in memory: that it is, and the data."""

    data: object

    def __new__(cls, data):
        given = super().__new__(cls, IN_MEMORY)
        given.data = data
        return given


def examples_given(data, reading: Reading, note: Note) -> list[Example]:
    """Return texts in memory as examples, checked as those of a file are. Raises InputError."""
    if hasattr(data, "columns"):
        names = [str(name) for name in data.columns]
        columns = find_columns(names, reading, "data")
        values = [data[name] for name in data.columns]
        if columns.guess:
            note(f"data: {columns.guess}")
    elif isinstance(data, list | tuple) and len(data) == 2 and not isinstance(data[0], str):
        names, values, columns = ["text", "label"], data, Columns(("text",), "label", {})
        if reading.said:
            raise InputError(f"data is (texts, labels): it has no column {reading.said[0]!r}")
        if not all(hasattr(column, "__iter__") for column in data):
            raise InputError(f"data is not {WANTED}: texts and labels are lists")
    else:
        raise InputError(f"data is a {type(data).__name__}, not {WANTED}")
    return examples_of(rows_of(names, values, columns), "data")


def rows_of(names: list[str], values, columns: Columns) -> Iterator[tuple[str, dict, Columns]]:
    """Yield (where it is, {column: value}, what its columns are), as `formats.records` does."""
    values = [[plain(value) for value in column] for column in values]
    lengths = [*map(len, values)]
    if len({*lengths}) > 1:
        raise InputError(f"data has {lengths[0]} texts and {lengths[1]} labels")
    for i, row in enumerate(zip(*values, strict=True)):
        yield f"data, text {i}", dict(zip(names, row, strict=True)), columns


def plain(value):
    """Return a number of numpy as Python's, and None for a cell of a frame that is missing."""
    value = value.item() if getattr(value, "ndim", None) == 0 else value
    itself = value == value  # of NaN it is False, and of the NA of pandas neither true nor false
    return value if itself is True else None
