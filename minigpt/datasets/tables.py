"""A .csv, .tsv or .txt file -> rows with named columns.

A first pass over the file finds how lines are cut (commas, semicolons, tabs; quoted or not): in the
one way with which the whole file agrees, which is surer than `csv.Sniffer`, who looks at a part. A
second pass reads. Neither holds more than a row in memory.
"""

import collections
import csv
import dataclasses
import io
import itertools
from collections.abc import Iterator
from pathlib import Path

from minigpt.datasets.columns import (
    AS_FOUND,
    KNOWN,
    Columns,
    Reading,
    Values,
    columns_by_number,
    columns_by_values,
    find_columns,
    unclear,
)
from minigpt.datasets.lines import numbered_lines
from minigpt.edge.errors import InputError

FASTTEXT = (
    "rows = [line.rstrip().partition(' ')[::2] for line in open({old!r}, encoding='utf-8')]; "
    "open({new!r}, 'w', encoding='utf-8').writelines(f'{{t}}\\t{{k[9:]}}\\n' for k, t in rows)"
)
MARKS = {",": "commas", ";": "semicolons", "|": "bars", "\t": "tabs"}
MANY_LINES = 1000  # that a row may have in a file in which a longer one was not closed
Row = tuple[int, list[str] | InputError]


@dataclasses.dataclass(frozen=True)
class Dialect:
    """How a line is cut into columns."""

    delimiter: str
    quoted: bool  # as RFC 4180 has it; else a quote is a quote

    def rows(self, lines, path: Path) -> Iterator[Row]:
        """Yield (line number, cells, or an InputError); empty lines are left out."""
        if self.quoted:
            yield from quoted_rows(lines, self.delimiter, path)
            return
        most = 1 if self.delimiter == " " else -1
        for number, line in lines:
            if isinstance(line, str):
                line = line.removesuffix("\n").removesuffix("\r") if line[-1:] == "\n" else line
                line = line and line.split(self.delimiter, most)
            if line:
                yield number, line


COMMA, TAB, QUOTED_TAB = Dialect(",", True), Dialect("\t", False), Dialect("\t", True)
SPACE = Dialect(" ", False)  # the first one
OF_CSV = (COMMA, Dialect(";", True), Dialect("|", True), QUOTED_TAB, TAB)


def quoted_rows(lines, delimiter: str, path: Path) -> Iterator[Row]:
    """Yield the rows of csv.reader, and an InputError for each that it cannot read.

    After that it goes on with the line after the one in which the bad row began: a quote that is
    not closed has taken the others with it.
    """
    source, begun, again, most = by_ends(lines), [], collections.deque(), None

    def text():
        while item := again.popleft() if again else next(source, None):
            begun.append(item)
            if isinstance(item[1], InputError):
                raise item[1]
            if most and len(begun) > most:
                raise csv.Error(f"more than {most} lines")
            yield item[1]

    reader = csv.reader(text(), delimiter=delimiter, strict=True)
    while True:
        begun.clear()
        try:
            row = next(reader, None)
        except (csv.Error, InputError) as error:
            if not begun:
                raise  # of the file, as an encoding that there is not
            number = begun[0][0]
            if isinstance(error, csv.Error):
                what = f"{path}, line {number}: "
                if len(begun) > 1 or "end of data" in str(error):
                    what += "a quote that opens here is not closed at the end of its cell: "
                error = InputError(f"{what}{error}")
            yield number, error
            if len(begun) > MANY_LINES:
                most = MANY_LINES  # else each line of such a file might read all the others
            again.extendleft(reversed(begun[1:]))
            reader = csv.reader(text(), delimiter=delimiter, strict=True)
            continue
        if row is None:
            return
        if row:
            yield begun[-1][0], row


def by_ends(lines) -> Iterator[tuple[int, str | InputError]]:
    """Yield numbered lines, or what is wrong with them; \\r alone ends a line, too."""
    count = itertools.count(1)
    for _, line in lines:
        if isinstance(line, InputError):
            yield next(count), line
        else:
            for part in io.StringIO(line, newline=""):
                yield next(count), part


@dataclasses.dataclass(frozen=True)
class Survey:
    """What a pass over a whole file found under one dialect."""

    dialect: Dialect
    line: int  # of the first row
    first: list[str]
    n: int  # rows, without the bad ones
    error: InputError | None  # of the first bad one
    regular: bool  # all rows have the first one's columns, and there is more than one
    quotes: bool  # a cell begins with a quote
    columns: list[Values]

    @property
    def width(self) -> int:
        """How many columns there are, without those at the end that are always empty."""
        filled = [i + 1 for i, column in enumerate(self.columns) if column.filled]
        return max(filled, default=0)


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the rows of a file are to be read."""

    dialect: Dialect
    names: tuple[str, ...]  # of the columns; those without a name are ignored
    total: int  # columns, with the empty ones at the end
    header: int  # the line of the header, or 0
    columns: Columns
    said: tuple[str, ...]  # what was guessed


def survey(path: Path, dialect: Dialect, reading: Reading, longest: int | None) -> Survey:
    """Read all of a file by a dialect; return what was found."""
    csv.field_size_limit(longest or 2**31 - 1)  # a text may be long
    lines = numbered_lines(path, str(path), reading.encoding, longest)
    begin, first, n, error, regular, quotes, columns, least = 0, [], 0, None, True, False, [], 0
    for number, row in dialect.rows(lines, path):
        if isinstance(row, InputError):
            error = error or row
            if dialect.quoted and not first:
                break  # without the first row, the others say little
            continue
        if is_blank(row, len(first or row)):
            continue
        if not first:
            begin, first, columns = number, row, [Values() for _ in row]
            least = max((i + 1 for i, cell in enumerate(row) if cell.strip()), default=0)
        n += 1
        regular = regular and len(row) >= least and not any(map(str.strip, row[len(first) :]))
        quotes = quotes or any(cell.startswith('"') for cell in row)
        for column, cell in zip(columns, row, strict=False):
            column.add(cell)
    regular = regular and error is None and len(first) > 1
    return Survey(dialect, begin, first, n, error, regular, quotes, columns)


def is_blank(row: list[str], total: int) -> bool:
    """Return whether no cell has content, in a file of two or more columns: it is no example."""
    return total > 1 and not any(map(str.strip, row))


def of_csv(path: Path, reading: Reading, labelled: bool, longest: int | None) -> Survey:
    """Return the survey of a .csv file: by commas, or by what else the whole file agrees with.

    Raises InputError if both make sense.
    """
    surveys, comma = [], None
    for dialect in OF_CSV:
        found = survey(path, dialect, reading, longest)
        comma = comma or found
        if not (found.first or found.error):
            return found  # of an empty file
        if found.regular:
            surveys.append(found)
            read = understood(found, path, reading, labelled)
            if (dialect == COMMA and read and read[0]) or dialect == QUOTED_TAB:
                break  # a header leaves no doubt; and quoted or not, tabs are the same here
    sure = [found for found in surveys if understood(found, path, reading, labelled)]
    if len(sure) > 1 and not reading.by_number:
        marks = [found.dialect.delimiter for found in sure]
        first = " or ".join(f"text{mark}label" for mark in marks)
        raise InputError(f"{path}: columns by {' or by '.join(marks)}? put a first line, {first}")
    return (sure or surveys or [comma])[0]


def of_tabs(path: Path, reading: Reading, longest: int | None) -> Survey:
    """Return the survey of a .tsv or .txt file.

    It is quoted if a cell begins with a quote and all of the file parses so, unless what the quotes
    would join are whole rows, of which a column has no other values than in those that are left.
    """
    plain = survey(path, TAB, reading, longest)
    if path.suffix.lower() == ".txt" and len(plain.first) == 1:
        return survey(path, SPACE, reading, longest)
    if not plain.quotes:
        return plain
    quoted = survey(path, QUOTED_TAB, reading, longest)
    joined = plain.regular and plain.n > quoted.n
    columns = zip(plain.columns, quoted.columns, strict=False)
    whole = joined and any(p.counts.keys() <= q.counts.keys() for p, q in columns)
    return quoted if quoted.regular and not whole else plain


def layout_of(
    path: Path, reading: Reading = AS_FOUND, labelled=True, longest: int | None = None
) -> Layout | None:
    """Return how a table is to be read, or None if it has no rows. Raises InputError."""
    if path.suffix.lower() == ".csv":
        found = of_csv(path, reading, labelled, longest)
    else:
        found = of_tabs(path, reading, longest)
    if not found.first:
        if found.error:
            raise found.error
        return None
    if found.first[0].startswith("__label__"):
        python = FASTTEXT.format(old=str(path), new=str(path.with_suffix(".tsv")))
        raise InputError(f"{path} is in fastText's format; convert it with Python: {python}")
    header, names, columns = columns_of(found, path, reading, labelled)
    said = dialect_said(found.dialect, path.suffix.lower())
    if header:
        if reading.by_number and not {*reading.said} & {*columns.text, columns.label}:
            said.append(f"line {found.line} is the header")
        said += [columns.guess] if columns.guess else []
        if len(found.first) > len(names):
            empty = "" if reading.said else "empty "  # else one that is not is refused, see table
            said.append(f"{empty}columns at the end without a name are ignored")
    elif not reading.order:
        what = {columns.label: "label"} | dict.fromkeys(columns.text, "text")
        taken = [f"column {i} is the {what[n]}" for i, n in enumerate(names, 1) if n in what]
        said.append(f"there is no header; {', '.join(taken)}")
    line = found.line if header else 0
    return Layout(found.dialect, tuple(names), len(found.first), line, columns, tuple(said))


def columns_of(
    found: Survey, path: Path, reading: Reading, labelled: bool
) -> tuple[bool, list[str], Columns]:
    """Return whether there is a header, the names of the columns, and what they are.

    Raises InputError where that is not clear.
    """
    where = f"{path}, line {found.line}"
    reading = by_name(found, reading, where, labelled)
    names, header = names_of(found, path, reading, labelled)
    columns = find_columns(names, Reading(reading.text, reading.label), where, labelled)
    if not columns.text or (labelled and columns.label is None):
        raise unclear(path, found.line, found.first, columns if header else None)
    return header, names, columns


def by_name(found: Survey, reading: Reading, where: str, labelled: bool) -> Reading:
    """Return the flags with names for numbers, if the first row is a header of known names.

    Raises InputError if it looks like another header, that is, its label is found nowhere else.
    """
    first = [name.strip() for name in found.first]
    if not reading.by_number or reading.is_of(first):
        return reading
    columns_by_number(reading, max(found.width, 1), where)
    cells = {number: first[int(number) - 1] for number in reading.said}
    try:
        columns = find_columns(first, AS_FOUND, where, labelled)
        known = bool(columns.text and (columns.label or not labelled))
    except InputError:
        known = False
    if known or all(cell.lower() in KNOWN for cell in cells.values()):
        text, label = tuple(cells[number] for number in reading.text), cells.get(reading.label)
        return dataclasses.replace(reading, text=text, label=label)
    if reading.label and found.columns[int(reading.label) - 1].first_is_alone:
        raise InputError(
            f"{where}: is line {found.line} a header? then say the names of its columns; else put "
            f"one before it, as no other row has the label {cells[reading.label]}"
        )
    return reading


def understood(found: Survey, path: Path, reading: Reading, labelled: bool):
    """Return what `columns_of` does, or None where that is not clear."""
    try:
        return columns_of(found, path, reading, labelled)
    except InputError:
        return None


def dialect_said(dialect: Dialect, ending: str) -> list[str]:
    """Return what was guessed about how lines are cut into columns, in words."""
    if dialect.delimiter == " ":
        return ["columns are separated by the first space"]
    if ending == ".csv":
        mark = "tabs" if dialect.delimiter == "\t" else dialect.delimiter
        return [] if dialect == COMMA else [f"columns are separated by {mark}"]
    return ["read as quoted, as all of it parses so"] if dialect.quoted else []


def names_of(found: Survey, path: Path, reading: Reading, labelled: bool):
    """Return (names of the columns, whether the first row has them). Raises InputError."""
    where, first = f"{path}, line {found.line}", [name.strip() for name in found.first]
    keys = {name.lower() for name in first}
    named = max((i + 1 for i, name in enumerate(first) if name), default=0)
    if reading.by_number and not reading.is_of(first):
        return columns_by_number(reading, found.width, where), False
    if reading.text or reading.label is not None:
        return first[:named], True
    columns = None
    if keys & KNOWN and found.dialect != SPACE:
        columns = find_columns(first, AS_FOUND, where, labelled)
        if columns.text and (columns.label or not labelled):
            return first[:named], True
        if "label" in keys:
            raise unclear(path, found.line, found.first, columns)
    names = reading.order or names_without_header(found, labelled)
    if names is None or len(names) != found.width:
        raise unclear(path, found.line, found.first, columns)
    return list(names), False


def names_without_header(found: Survey, labelled: bool) -> list[str] | None:
    """Return what the columns are by their values, or None where that is not sure."""
    if found.width < 2 and not labelled:
        return ["text"]
    columns = found.columns[: found.width]
    if found.dialect == SPACE:
        taken = columns_by_values(columns, found.n)
        sure = taken == ["label", "text"] and columns[0].are_often(found.n)
        return taken if sure else None
    if found.n < 3 and not labelled:
        return None
    return columns_by_values(columns, found.n)


def table(path: Path, layout: Layout, reading: Reading, longest: int | None):
    """Yield the records of a table."""
    csv.field_size_limit(longest or 2**31 - 1)
    lines = numbered_lines(path, str(path), reading.encoding, longest)
    width = len(layout.names)
    for number, row in layout.dialect.rows(lines, path):
        where = f"{path}, line {number}"
        if number == layout.header:
            continue
        if isinstance(row, InputError):
            yield where, row, None
        elif is_blank(row, layout.total):
            continue
        elif len(row) < width or any(map(str.strip, row[layout.total :])):
            error = InputError(f"{where}: {len(row)} columns instead of {width}")
            yield where, error, None
        elif (beyond := next(filter(str.strip, row[width:]), None)) and not reading.said:
            mark = MARKS.get(layout.dialect.delimiter, "spaces")
            error = f"{where}: {beyond[:60]!r} is in a column without a name; a text with {mark} "
            error += "must be quoted, or leave it out with --text-column and --label-column"
            yield where, InputError(error), None
        else:
            record = dict(zip(layout.names, row, strict=False))
            record.pop("", None)
            yield where, record, layout.columns
