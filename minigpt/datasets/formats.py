"""A file of texts and labels -> examples. Knows nothing of splits."""

import csv
import io
import json
from pathlib import Path

from minigpt.data import Example
from minigpt.edge.errors import InputError

TEXT_COLUMNS = ("text", "sentence", "content")


def read_examples(path: Path) -> list[Example]:
    """Read a .tsv, .csv or .jsonl file of texts and labels.

    With a header (or keys) `text`, `sentence` or `content`, and `label`; columns `pair`, `kind`
    and `split` are understood, others ignored. Without a header: two columns, text and label.
    Raises InputError, naming file and line.
    """
    readers = {".tsv": read_tsv, ".csv": read_csv, ".jsonl": read_jsonl}
    if path.suffix not in readers:
        raise InputError(f"{path}: the name of a data file ends in {', '.join(readers)}")
    if path.exists() and not path.is_file():  # a pipe would be waited for, a device has no end
        raise InputError(f"{path} is not a regular file")
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
    rows = ((i, line.split("\t")) for i, line in enumerate(lines, 1) if line)
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
    rows = list(rows)
    columns = [name.strip().lower() for name in rows[0][1]] if rows else []
    if "label" in columns:
        del rows[0]
    elif rows:
        two = all(len(row) == 2 for _, row in rows)
        labels = [row[-1].strip() for _, row in rows]
        if len(columns) != 2 or (two and len(rows) > 2 and labels[0] not in labels[1:]):
            raise InputError(
                f"{path}, line 1: neither a header with {'|'.join(TEXT_COLUMNS)} and label, nor "
                f"two columns (text, label) without a header; name the columns"
            )
        columns = ["text", "label"]
    for line, row in rows:
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
