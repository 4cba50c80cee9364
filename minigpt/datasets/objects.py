"""A .jsonl or .json file -> JSON objects, and which of their keys are text and label."""

import functools
import json
from pathlib import Path

from minigpt.datasets.columns import Columns, Reading, find_columns
from minigpt.datasets.lines import numbered_lines
from minigpt.edge.errors import InputError


def once(pairs: list[tuple]) -> dict:
    """Return a JSON object of which no key is there twice."""
    table = dict(pairs)
    if len(table) < len(pairs):
        seen = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"the key {twice!r} is there twice")
    return table


def objects(path: Path, reading: Reading, labelled: bool, longest: int | None):
    """Yield the records of a file of JSON objects: one on each line, or, in .json, a list."""

    @functools.lru_cache(64)
    def columns_of(names: tuple[str, ...]) -> Columns:
        return find_columns([*names], reading, str(path), labelled)

    listed = list_of(path, reading) if path.suffix.lower() == ".json" else None
    items = parsed_lines(path, reading, longest) if listed is None else enumerate(listed, 1)
    first = None  # where the first object is, what its columns are, and whether that is a guess
    for number, item in items:
        where = f"{path}, {'line' if listed is None else 'item'} {number}"
        columns = None
        if isinstance(item, dict):
            try:
                columns = columns_of(tuple(item))
            except InputError as error:
                item = InputError(f"{where}{str(error).removeprefix(str(path))}")
            else:
                names = in_words(columns)
                first = first or (where, names, columns.guess)
                if names != first[1] and (columns.guess or first[2]):
                    item = InputError(
                        f"{where}: {names}, but in {first[0]} {first[1]}; say --text-column NAME "
                        "and --label-column NAME"
                    )
        elif not isinstance(item, InputError):
            item = InputError(f"{where}: not an object with text and label")
        yield where, item, columns


def in_words(columns: Columns) -> str:
    """Return where text and label are."""
    label = "" if columns.label is None else f" and the label in {columns.label}"
    return f"the text is in {' and '.join(columns.text)}{label}"


def parsed_lines(path: Path, reading: Reading, longest: int | None):
    """Yield (number, what its JSON says) for each line that is not blank, or an InputError."""
    for number, line in numbered_lines(path, str(path), reading.encoding, longest):
        if isinstance(line, str):
            if not line.strip():
                continue
            try:
                line = json.loads(line, object_pairs_hook=once)
            except (ValueError, RecursionError) as error:
                line = InputError(f"{path}, line {number}: not JSON ({error})")
        yield number, line


def list_of(path: Path, reading: Reading) -> list | None:
    """Return the list that a .json file holds, or None if it holds an object on each line."""
    content = []
    for _, line in numbered_lines(path, str(path), reading.encoding):
        if isinstance(line, InputError):
            raise line
        content.append(line)
    try:
        listed = json.loads("".join(content), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        if content and content[0].strip().endswith("}"):
            return None
        raise InputError(f"{path}: not JSON ({error})") from None
    if isinstance(listed, dict) and len(content) < 2:
        return None
    if not isinstance(listed, list):
        raise InputError(f"{path}: not a list of objects with text and label")
    return listed
