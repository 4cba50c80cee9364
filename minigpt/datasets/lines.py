"""A file's bytes -> numbered lines of text. Knows nothing of what is in them."""

import codecs
import io
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from minigpt.edge.errors import InputError

LONGEST_LINE = 2**24  # bytes: a line is held in memory, and no text has as many
MARKS = {  # byte-order marks; those of four bytes first, since FF FE begins two of them
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

# What is not text: how a name ends, how the bytes begin, what to install, and what makes text of it
PANDAS = "import pandas; pandas.read_{}({{old!r}}).to_csv({{new!r}}, index=False)"
UNPACK = "import {0}; open({{plain!r}}, 'wb').write({0}.open({{old!r}}).read())"
UNZIP = "import zipfile; zipfile.ZipFile({old!r}).extractall()"
NOT_TEXT = {
    (".xlsx", ".xlsm"): (b"PK\3\4", "openpyxl", PANDAS.format("excel")),
    (".xls",): (b"\xd0\xcf\x11\xe0", "xlrd", PANDAS.format("excel")),
    (".ods",): (b"PK\3\4", "odfpy", PANDAS.format("excel")),
    (".parquet",): (b"PAR1", "pyarrow", PANDAS.format("parquet")),
    (".feather", ".arrow"): (b"ARROW1", "pyarrow", PANDAS.format("feather")),
    (".gz",): (b"\x1f\x8b", "", UNPACK.format("gzip")),
    (".bz2",): (b"BZh9", "", UNPACK.format("bz2")),
    (".xz",): (b"\xfd7zXZ\0", "", UNPACK.format("lzma")),
    (".zip",): (b"PK\3\4", "", UNZIP),
}


def refuse_what_is_not_text(path: Path) -> None:
    """Raise InputError for a missing file, and for one in a format that other programs read.

    The message has the lines of Python that convert it.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for, a device has no end
        raise InputError(f"{path} is not a regular file")
    try:
        with open(path, "rb") as file:
            head = file.read(8)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    ending = path.suffix.lower()
    named = [what for endings, what in NOT_TEXT.items() if ending in endings]
    begun = [what for what in NOT_TEXT.values() if head.startswith(what[0])]
    if named or begun:
        _, engine, python = named[0] if named else begun[-1]  # of PK: a .zip
        plain = path.with_suffix("") if named else f"{path}.txt"
        python = python.format(old=str(path), new=str(path.with_suffix(".csv")), plain=str(plain))
        first = f" (after pip install pandas {engine})" if engine else ""
        raise InputError(f"{path} is not text; convert it with Python{first}: {python}")


def numbered_lines(
    path: Path | int, name: str, encoding: str | None = None, longest: int | None = None
) -> Iterator[tuple[int, str | InputError]]:
    """Yield (number, line with its end) for a file, or for file descriptor 0.

    Lines end with \\n. The encoding is UTF-8, or that of the byte-order mark, unless one is given.
    In place of a line that is not text, or has more than `longest` bytes, there is an InputError.
    """
    with open(path, "rb", closefd=path != 0) as file:
        head = file.peek(4)[:4]
        mark = next((m for m in MARKS if head.startswith(m)), None)
        if not encoding and re.fullmatch(rb"(\0[^\0]){2}|([^\0]\0){2}", head):
            guess = "utf-16-le" if head[0] else "utf-16-be"
            yield 1, InputError(f"{name}, line 1: this looks like UTF-16; say --encoding {guess}")
            return
        found = encoding or MARKS.get(mark, "utf-8")
        if is_by_bytes(found):
            yield from byte_lines(file, name, found, encoding is None, longest)
        else:
            yield from wide_lines(file, name, found, longest)


def is_by_bytes(encoding: str) -> bool:
    """Return whether a line ends with the byte \\n. Raises InputError for what is no encoding."""
    try:
        return "\n".encode(encoding) == b"\n"
    except (LookupError, UnicodeError, ValueError):
        raise InputError(
            f"--encoding {encoding}: Python knows no such encoding; try latin-1, cp1252 or utf-16"
        ) from None


def byte_lines(file, name, encoding, guessed, longest):
    """Yield the lines of an encoding in which each can be read by itself."""
    limit = -1 if longest is None else longest + 1
    for number in itertools.count(1):
        line = file.readline(limit)
        if not line:
            return
        if longest is not None and len(line) > longest:
            while line and not line.endswith(b"\n"):
                line = file.readline(longest)
            yield number, InputError(f"{name}, line {number}: longer than {longest:,} bytes")
            continue
        try:
            text = line.decode(encoding)
            yield number, text.removeprefix("\ufeff") if number == 1 else text
        except UnicodeError:
            yield number, InputError(f"{name}, line {number}: {not_in(encoding, guessed)}")


def wide_lines(file, name, encoding, longest):
    """Yield the lines of UTF-16 and its like; an error is the last that is yielded."""
    number, limit = 1, -1 if longest is None else longest // 2 + 1
    try:
        text = io.TextIOWrapper(file, encoding, newline="\n")
        while line := text.readline(limit):
            if 0 < limit <= len(line):
                while line and not line.endswith("\n"):
                    line = text.readline(limit)
                yield number, InputError(f"{name}, line {number}: longer than {longest:,} bytes")
            else:
                yield number, line.removeprefix("\ufeff") if number == 1 else line
            number += 1
    except UnicodeError:
        yield number, InputError(f"{name}, line {number} or soon after: {not_in(encoding, False)}")


def not_in(encoding: str, guessed: bool) -> str:
    """Return what is wrong with bytes that an encoding does not have, and what to do."""
    if guessed:
        return "not UTF-8; say what it is with --encoding, such as --encoding latin-1"
    return f"not {encoding}; say another --encoding, or leave it out for UTF-8"
