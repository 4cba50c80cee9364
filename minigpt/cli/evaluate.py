"""python -m minigpt evaluate: how good a run is on other labelled texts."""

import json
import os
from pathlib import Path

from minigpt import runs
from minigpt.cli.devices import device_of
from minigpt.cli.flag_types import DEVICES, add_reading, named
from minigpt.cli.predict import cut_at
from minigpt.cli.program import Parser, voices
from minigpt.data import Example
from minigpt.datasets import NAMED, Reading, read_examples, read_splits
from minigpt.edge.errors import InputError, first_few
from minigpt.fast import own_process
from minigpt.metrics import summarize


def labelled(data: str, reading: Reading, note) -> list[Example]:
    """Return the texts that --data means: those for testing, or all where a file has no splits."""
    if data not in NAMED and not Path(data).is_dir():
        examples = read_examples(Path(data), reading, note)
        if not any(e.split for e in examples):
            return examples
        note(f"{data}: of its column split, the texts for testing are taken")
    splits = read_splits(data, 0, reading, note if Path(data).is_dir() else lambda _: None)
    if not splits.get("test"):
        raise InputError(f"--data {data}: its column split has no texts for testing")
    return splits["test"]


def evaluate(argv: list[str]) -> None:
    """Measure a run on other labelled texts: the table that training ends with."""
    parser = Parser(prog="python -m minigpt evaluate", description=evaluate.__doc__)
    add = parser.add_argument
    add("run", metavar="RUN", help="a folder written by train.py, or by transformers")
    add("--data", type=named, required=True, help="as for train.py")
    add_reading(add)
    add("--json", action="store_true", help="print the figures as JSON instead")
    add("--device", default="auto", choices=DEVICES, help="auto: a GPU if there is one")
    args = parser.parse_intermixed_args(argv)
    own_process()
    _, note = voices()
    run = runs.load_run(args.run, device_of(args.device))
    examples = labelled(args.data, Reading.of(args), note)
    whole = Path(args.data).is_file() and not any(e.split for e in examples)
    if whole and os.path.abspath(args.data) == run.recipe.get("data"):
        note(f"{args.data}: {args.run} was trained on most of these texts")
    if unknown := {e.label for e in examples} - {*run.labels}:
        raise InputError(
            f"--data {args.data} has the label {first_few(sorted(unknown))}, which {args.run} does "
            f"not know (its labels: {first_few(run.labels)})"
        )
    tokens = run.tokenize([e.text for e in examples])
    logits = run.part.logits_of(tokens)
    if not logits.isfinite().all():
        raise InputError("the logits of some texts are not finite: damaged weights?")
    test = summarize(logits, examples, run.labels)
    if args.json:
        data = {"name": args.data, "labels": run.labels, "truncated": tokens.truncated}
        print(json.dumps({"run": args.run, "data": data, "test": test}, indent=2))
        return
    rows = [*runs.rows_of_test(test, run.labels), ("texts", f"{len(examples)} of {args.data}")]
    if tokens.truncated:
        rows.append(("", cut_at(run, tokens.truncated, len(examples))))
    print(runs.in_columns([*rows, ("run", args.run)]))
