"""Rating texts with a trained run: a few, or a file of any size line by line."""

import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Iterator

import torch

from minigpt.cli.flags import DEVICES, device_of
from minigpt.cli.program import Parser
from minigpt.data import tokenize
from minigpt.data import Example
from minigpt.edge.errors import InputError
from minigpt.fast.frozen import FrozenPart
from minigpt.fit import evaluate
from minigpt.runs.folder import Run, load_run

LONGEST_LINE = 2**24  # bytes: a line is held in memory, and no text has as many


@dataclasses.dataclass
class Skipped:
    """The lines that were no text: how many, and the first few of them."""

    count: int = 0
    first: list[str] = dataclasses.field(default_factory=list)

    def add(self, where: str) -> None:
        self.count += 1
        if len(self.first) < 3:
            self.first.append(where)


def texts_of(args, skipped: Skipped) -> Iterator[str]:
    """Yield the texts to rate, one by one: neither a file nor stdin need fit in memory.

    A line that is no text raises InputError, or is counted with --skip-bad.
    """
    if not args.texts and not args.file:
        raise InputError("predict: no text; give TEXT, --file F, or - for stdin")
    bad = skipped if args.skip_bad else None
    for text in args.texts:
        if text == "-":
            yield from lines_of(0, "stdin", bad)
        else:
            yield text
    if args.file:
        yield from lines_of(args.file, args.file, bad)


def lines_of(file: str | int, name: str, bad: Skipped | None) -> Iterator[str]:
    """Yield the lines of a file, or of file descriptor 0, without their ends."""
    with open(file, "rb", closefd=file != 0) as lines:
        for number in itertools.count(1):
            line = lines.readline(LONGEST_LINE + 1)
            if not line:
                return
            where, wrong = f"{name}, line {number}", ""
            if len(line) > LONGEST_LINE:
                wrong = f"longer than {LONGEST_LINE:,} bytes"
                while line and not line.endswith(b"\n"):
                    line = lines.readline(LONGEST_LINE)
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                wrong = wrong or "not UTF-8"
            if not wrong:
                yield text.rstrip("\r\n")
            elif bad is None:
                raise InputError(f"{where}: {wrong}; mend it, or go on past it with --skip-bad")
            else:
                bad.add(where)


def chunks(texts: Iterator[str]) -> Iterator[tuple[list[str], InputError | None]]:
    """Yield texts in lists, and what went wrong after the last of them, if anything.

    Long lists read faster, so that they grow as long as texts come faster than one can watch: a
    slow pipe is answered text by text. No more is held in memory than the longest line.
    """
    size = 1
    while True:
        chunk, error, held, began = [], None, 0, time.monotonic()
        try:
            while len(chunk) < size and held < LONGEST_LINE:
                chunk.append(next(texts))
                held += len(chunk[-1])
        except StopIteration:
            if not chunk:
                return
        except InputError as wrong:
            error = wrong
        slow = time.monotonic() - began > 0.2  # seconds
        yield chunk, error
        size = max(1, size // 8) if slow else min(2 * size, 1024)


def rate(run: Run, part: FrozenPart, texts: list[str]) -> torch.Tensor:  # -> (texts, K)
    """Return the probability of each class."""
    examples = [Example(text, run.labels[0]) for text in texts]  # the label is of no account
    tokens = tokenize(examples, run.labels, run.tokenizer, run.max_length, run.append_end)
    return evaluate(run.model, part.of(tokens)).softmax(1)


def predict(argv: list[str]) -> None:
    """Rate texts with a trained run."""
    parser = Parser(prog="python -m minigpt predict", description=predict.__doc__)
    parser.add_argument("run", metavar="RUN", help="of train.py, or of transformers")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="'-' reads lines from stdin")
    parser.add_argument("--file", help="a file with a text on each line")
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    parser.add_argument("--skip-bad", action="store_true", help="go on past lines that are no text")
    parser.add_argument("--device", default="auto", choices=DEVICES)
    args = parser.parse_intermixed_args(argv)
    run = load_run(args.run, device_of(args.device))
    part, skipped = FrozenPart(run.model), Skipped()
    for chunk, error in chunks(texts_of(args, skipped)):
        rows = rate(run, part, chunk).tolist() if chunk else []
        for text, row in zip(chunk, rows, strict=True):
            table = dict(zip(run.labels, row, strict=True))
            label = max(table, key=table.get)
            if args.json:
                found = {"text": text, "label": label, "probability": table[label]}
                print(json.dumps(found | {"probabilities": table}))
            else:
                cells = " ".join(label.split()), f"{table[label]:.3f}", " ".join(text.splitlines())
                print(*cells, sep="\t")
        sys.stdout.flush()
        if error:  # after the answers to what came before it
            raise error
    if skipped.count:
        where = ", ".join(skipped.first) + " ..." * (skipped.count > len(skipped.first))
        print(f"skipped {skipped.count} bad lines: {where}", file=sys.stderr)
