"""python -m minigpt predict: classify a few texts, or a file of any size, a row at a time."""

import dataclasses
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from minigpt.cli.devices import device_of
from minigpt.cli.flag_types import DEVICES, add_reading
from minigpt.cli.program import Parser, voices
from minigpt.data import Tokens
from minigpt.datasets import (
    LONGEST_LINE,
    Reading,
    numbered_lines,
    records,
    refuse_what_is_not_text,
    text_of,
)
from minigpt.edge.errors import InputError
from minigpt.fast import own_process
from minigpt.runs import Run, load_run

CHUNK = 64  # texts that are read together; from stdin, each is answered as it comes
BY_COLUMN = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".json")


class Text(str):
    """A text that knows the object it is a part of."""

    record: dict


@dataclasses.dataclass
class Skipped:
    """The lines that could not be read: how many, and the first few of them."""

    count: int = 0
    first: list[str] = dataclasses.field(default_factory=list)

    def add(self, where: str) -> None:
        self.count += 1
        if len(self.first) < 3:
            self.first.append(where)


def chunks_of(args, skipped: Skipped) -> Iterator[list[str]]:
    """Yield the texts to classify, in lists: neither a file nor stdin need fit in memory.

    A line that is not text raises InputError, after what was before it, or is counted with
    --skip-bad.
    """
    if not args.texts and not args.file:
        raise InputError("predict: no text; give TEXT, --file F, or - for stdin")
    bad = skipped if args.skip_bad else None
    for is_stdin, texts in itertools.groupby(args.texts, "-".__eq__):
        if is_stdin:
            texts = lines_of(0, "stdin", bad, args.encoding)
        yield from chunked(texts, 1 if is_stdin else CHUNK)
    if args.file:
        if Path(args.file).is_file():  # and no pipe
            refuse_what_is_not_text(Path(args.file))
        by_column = Path(args.file).suffix.lower() in BY_COLUMN or args.text_column
        if by_column:
            texts = texts_of_records(args, bad)
        else:
            texts = lines_of(args.file, args.file, bad, args.encoding)
        yield from chunked(texts, CHUNK)


def chunked(texts: Iterator[str], size: int) -> Iterator[list[str]]:
    """Yield texts in lists of `size`, or fewer if they are long; an error waits for its turn."""
    chunk = []
    try:
        for text in texts:
            chunk.append(text)
            if len(chunk) == size or sum(map(len, chunk)) >= LONGEST_LINE:
                yield chunk
                chunk = []
    except InputError:
        yield chunk
        raise
    yield chunk


def lines_of(
    file: str | int, name: str, bad: Skipped | None = None, encoding: str | None = None
) -> Iterator[str]:
    """Yield the lines of a file, or of file descriptor 0, without their ends.

    If the first is a JSON object, no JSON object is taken for a text.
    """
    objects = False
    for number, line in numbered_lines(file, name, encoding, LONGEST_LINE):
        where = f"{name}, line {number}"
        if isinstance(line, InputError):
            pass_over(line, where, bad)
            continue
        objects = is_object(line) if number == 1 else objects
        if objects and is_object(line):
            said = "a JSON object, not a text; save it as a .jsonl file and use --file"
            pass_over(InputError(f"{where}: {said}"), where, bad)
            continue
        yield line.rstrip("\r\n")


def is_object(line: str) -> bool:
    """Return whether a line is a JSON object."""
    try:
        return line.lstrip().startswith("{") and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def texts_of_records(args, bad: Skipped | None) -> Iterator[Text]:
    """Yield the texts of --file by the column that has them."""
    _, note = voices()
    how = {"labelled": False, "longest": LONGEST_LINE}
    for where, record, columns in records(Path(args.file), Reading.of(args), note, **how):
        try:
            if isinstance(record, InputError):
                raise record
            text = Text(text_of(record, columns, where))
            text.record = record
        except InputError as error:
            pass_over(error, where, bad)
            continue
        yield text


def pass_over(error: InputError, where: str, bad: Skipped | None) -> None:
    """Count a bad line with --skip-bad; else raise InputError."""
    if bad is None:
        raise InputError(f"{error}; fix it, or skip such lines with --skip-bad") from None
    bad.add(where)


def cut_at(run: Run, cut: int, texts: int) -> str:
    """Return how many texts were cut, in words."""
    return (
        f"{cut} of {texts} texts are longer than {run.max_length} tokens: their {run.keep} was read"
    )


class Remarks:
    """What is to be said of texts that were read: how many were cut, empty, or unlike train's."""

    def __init__(self, run: Run):
        self.run, self.count, self.cut, self.empty, self.unlike = run, 0, 0, 0, 0

    def add(self, texts: list[str], tokens: Tokens) -> None:
        self.count, self.cut = self.count + len(texts), self.cut + tokens.truncated
        empty = np.array([not text.strip() for text in texts])
        self.empty += int(empty.sum())
        if self.run.train_lengths:
            least, most = self.run.train_lengths
            unlike = (2 * tokens.lengths < least) | (tokens.lengths > 2 * most)
            self.unlike += int((unlike & ~empty).sum())

    def lines(self) -> Iterator[str]:
        if self.cut:
            yield cut_at(self.run, self.cut, self.count)
        if self.empty:
            yield f"{self.empty} of {self.count} texts are empty: their answer means nothing"
        if self.unlike:
            least, most = self.run.train_lengths
            yield (
                f"{self.unlike} of {self.count} texts are much shorter or longer than all it was "
                f"trained on, {least} to {most} tokens: do not trust their answers"
            )


def predict(argv: list[str]) -> None:
    """Classify texts with a trained run."""
    parser = Parser(prog="python -m minigpt predict", description=predict.__doc__)
    add = parser.add_argument
    add("run", metavar="RUN", help="a folder written by train.py, or by transformers")
    add("texts", nargs="*", metavar="TEXT", help="'-' answers each line of stdin")
    add("--file", help="a text on each line; in .csv, .tsv, .jsonl and .json, a column of texts")
    add_reading(add, label=False)
    add(
        "--json", action="store_true", help="a JSON object a line: that of the file, and the answer"
    )
    add("--skip-bad", action="store_true", help="go on past lines that are not text")
    add("--device", default="auto", choices=DEVICES, help="auto: a GPU if there is one")
    args = parser.parse_intermixed_args(argv)
    own_process()
    run = load_run(args.run, device_of(args.device))
    part, skipped, remarks = run.part, Skipped(), Remarks(run)
    try:
        for chunk in chunks_of(args, skipped):
            if chunk:
                tokens = run.tokenize(chunk)
                logits = part.logits_of(tokens)
                remarks.add(chunk, tokens)
                for text, row in zip(chunk, logits.softmax(1).tolist(), strict=True):
                    print(answer(text, dict(zip(run.labels, row, strict=True)), args.json))
            if sys.stdout:
                sys.stdout.flush()
    finally:
        for line in remarks.lines():
            print(line, file=sys.stderr)
    if skipped.count:
        where = ", ".join(skipped.first) + " ..." * (skipped.count > len(skipped.first))
        print(f"skipped {skipped.count} bad lines: {where}", file=sys.stderr)


def answer(text: str, probabilities: dict[str, float], as_json: bool) -> str:
    """Return one line: label, probability and text, or a JSON object.

    Fields of the object that have the names of those of the answer are called given_...
    """
    label = max(probabilities, key=probabilities.get)
    if as_json:
        fields = {"label": label, "probability": probabilities[label]}
        fields |= {"probabilities": probabilities}
        given = text.record if isinstance(text, Text) else {"text": text}
        for name in fields.keys() & given.keys():
            new = f"given_{name}"
            while new in given:  # it is an answer already
                new = f"given_{new}"
            given = {new if n == name else n: value for n, value in given.items()}
        return json.dumps(given | fields)
    cells = " ".join(label.split()), f"{probabilities[label]:.3f}", " ".join(text.splitlines())
    return "\t".join(cells)
