"""python -m minigpt predict: classify a few texts, or a file of any size line by line."""

import dataclasses
import itertools
import json
import sys
from collections.abc import Iterator

import torch

from minigpt.cli.flag_types import DEVICES, device_of
from minigpt.cli.program import Parser
from minigpt.data import Example, tokenize
from minigpt.edge.errors import InputError
from minigpt.fast import FrozenPart
from minigpt.fit import read_all
from minigpt.runs import Run, load_run

LONGEST_LINE = 2**24  # bytes: a line is held in memory, and no text has as many
CHUNK = 64  # texts that are read together; from stdin, each is answered as it comes


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
        for _ in texts if is_stdin else ():
            yield from chunked(lines_of(0, "stdin", bad), 1)
        yield from chunked(texts, CHUNK)
    if args.file:
        yield from chunked(lines_of(args.file, args.file, bad), CHUNK)


def chunked(texts: Iterator[str], size: int) -> Iterator[list[str]]:
    """Yield texts in lists of `size`, or fewer if they are long; an error waits for its turn."""
    chunk, error = [], None
    while error is None:
        try:
            chunk.append(next(texts))
        except (StopIteration, InputError) as end:
            error = end
        if error or len(chunk) == size or sum(map(len, chunk)) >= LONGEST_LINE:
            yield chunk
            chunk = []
    if isinstance(error, InputError):
        raise error


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
                raise InputError(f"{where}: {wrong}; fix it, or skip such lines with --skip-bad")
            else:
                bad.add(where)


def rate(run: Run, part: FrozenPart, texts: list[str]) -> torch.Tensor:  # -> (texts, K)
    """Return the probability of each class."""
    examples = [Example(text, run.labels[0]) for text in texts]  # any label will do
    tokens = tokenize(examples, run.labels, run.tokenizer, run.max_length, run.append_end)
    return read_all(part.logits, tokens, part.device).softmax(1)


def predict(argv: list[str]) -> None:
    """Classify texts with a trained run."""
    parser = Parser(prog="python -m minigpt predict", description=predict.__doc__)
    parser.add_argument("run", metavar="RUN", help="of train.py, or of transformers")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="'-' answers each line of stdin")
    parser.add_argument("--file", help="a file with a text on each line")
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    parser.add_argument(
        "--skip-bad", action="store_true", help="go on past lines that are not text"
    )
    parser.add_argument("--device", default="auto", choices=DEVICES)
    args = parser.parse_intermixed_args(argv)
    run = load_run(args.run, device_of(args.device))
    part, skipped = FrozenPart(run.model), Skipped()
    for chunk in chunks_of(args, skipped):
        probabilities = rate(run, part, chunk).tolist() if chunk else []
        for text, row in zip(chunk, probabilities, strict=True):
            print(answer(text, dict(zip(run.labels, row, strict=True)), args.json))
        sys.stdout.flush()
    if skipped.count:
        where = ", ".join(skipped.first) + " ..." * (skipped.count > len(skipped.first))
        print(f"skipped {skipped.count} bad lines: {where}", file=sys.stderr)


def answer(text: str, probabilities: dict[str, float], as_json: bool) -> str:
    """Return one line: label, probability and text, or a JSON object."""
    label = max(probabilities, key=probabilities.get)
    if as_json:
        fields = {"text": text, "label": label, "probability": probabilities[label]}
        return json.dumps(fields | {"probabilities": probabilities})
    cells = " ".join(label.split()), f"{probabilities[label]:.3f}", " ".join(text.splitlines())
    return "\t".join(cells)
