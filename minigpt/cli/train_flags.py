"""The flags of train.py, as they are typed.

Loads torch only to read what a stopped run was started with: help is there at once.
"""

import argparse
import os
import shutil
from pathlib import Path

from minigpt import __version__
from minigpt.cli.flag_types import (
    DEVICES,
    DTYPES,
    POOLINGS,
    above_zero,
    add_reading,
    at_least,
    named,
    refuse_run,
)
from minigpt.cli.program import Parser
from minigpt.edge.errors import InputError

WEIGHTS = "gpt2[-medium|-large|-xl], tiny, a folder, or ORG/REPO; default: gpt2 if at hand, or tiny"
DATA = (
    "mirrored (default), sst2, a .csv/.tsv/.jsonl/.json/.txt file, or a folder with train, dev and "
    "test; with columns text and label, and, if there are any, split (train, dev, test), pair (its "
    "texts stay in one split) and kind (accuracy by kind)"
)
IN_LAST = "LoRA or adapters in the last N blocks only; default: all"
ONLY = "tensors by their names, or bitfit (all biases), or norms (layer norms)"
BALANCED = "each class weighs the same in the loss, however many texts it has; default: each text"
DTYPE = "of the trunk; auto: bfloat16 on GPUs, else float32; int8: of what is frozen, on CPUs"
EPOCHS = "default: 30 for a frozen trunk; else 3, or 6 for fewer than 5,000 texts"
WEIGHT_DECAY = "default: 0.1; for a head on a frozen trunk, six from 3 to 0.01: dev chooses"


def add_methods(parser: Parser) -> None:
    """Add the flags that say what is trained."""
    group = parser.add_argument_group("what is trained besides the head (default: everything)")
    one = group.add_mutually_exclusive_group().add_argument
    one("--freeze-trunk", action="store_true", help="nothing")
    one("--train-last", type=int, metavar="N", help="the last N blocks and ln_f")
    one("--train-only", metavar="GLOB[,GLOB]", help=ONLY)
    one("--lora", type=int, metavar="R", help="LoRA of rank R (Hu et al. 2021)")
    one("--adapter", type=int, metavar="R", help="adapters of bottleneck R (Houlsby et al. 2019)")
    one("--prompt", type=int, metavar="N", help="N vectors before each text (Lester et al. 2021)")
    one("--prefix", type=int, metavar="N", help="N keys and values a block (Li & Liang 2021)")
    more = group.add_argument
    more("--in-last", type=int, metavar="N", help=IN_LAST)
    more("--lora-on", metavar="GLOB[,GLOB]", help="layers by name or its end; default: c_attn")
    more("--lora-alpha", type=above_zero, metavar="A", help="scales by A / R; default: 2 R")
    more("--lora-dropout", type=at_least(0.0, 1.0), metavar="P", help="on its input; default: 0")
    more("--warm-head", type=at_least(1), metavar="E", help="E epochs of the head alone, first")


def parser_of(description: str, prog: str = "train.py") -> Parser:
    """Return the parser of train.py's flags."""
    parser = Parser(prog=prog, description=description)
    add = parser.add_argument
    add("--version", action="version", version=f"minigpt {__version__}")
    add("--weights", type=named, help=WEIGHTS)
    add("--data", type=named, default="mirrored", help=DATA)
    add_reading(add)

    add_methods(parser)
    add("--pool", default="last", choices=POOLINGS, help="which of a text's vectors is read")
    add("--append-end", action="store_true", help="put <|endoftext|> after each text")
    add("--epochs", type=at_least(1), help=EPOCHS)
    add("--batch-size", type=at_least(1), default=32, help="texts read at once")
    add("--lr", type=above_zero, help="default: by what is trained and the trunk's width")
    add("--weight-decay", type=at_least(0.0), help=WEIGHT_DECAY)
    add("--warmup", type=at_least(0.0, 1.0), default=0.1, help="share of the steps")
    add("--clip", type=above_zero, help="largest norm of the gradient; default: 1, for a head none")
    add("--accumulate", type=at_least(1), default=1, help="batches to a gradient step")
    add("--dropout", type=at_least(0.0, 1.0), help="of what is trained; default: config.json's")
    add("--max-length", type=at_least(1), help="tokens kept of a text; default: the context")
    add("--keep", choices=("start", "end"), default="start", help="of a text that is longer")
    add("--class-weights", choices=("balanced",), help=BALANCED)
    add("--seed", type=at_least(0, 2**63), default=0, help="of order, splits and dropout")
    add("--device", default="auto", choices=DEVICES, help="auto: a GPU if there is one")
    add("--dtype", default="auto", choices=DTYPES, help=DTYPE)
    add("--compile", action="store_true", help="compile the blocks: for long runs")
    add("--out", type=named, help="folder for the run (default: runs/NAME, made from the choices)")
    add("--save-every", type=at_least(0.0), default=60.0, metavar="S", help="seconds")
    add("--resume", type=named, metavar="RUN", help="resume a run that was stopped")
    add("--quiet", action="store_true", help="print the last table only")
    return parser


def parse(description: str, argv: list[str], prog: str = "train.py") -> argparse.Namespace:
    """Return what was typed, and `argv` itself; with --resume, what was typed when the run began.

    Raises InputError for flags that contradict each other.
    """
    parser = parser_of(description.split("\n")[0], prog)
    typed = parser.parse_args(argv)
    refuse_run(typed.weights, "train on those, or go on with a run by --resume")
    if typed.resume:
        flags = {flag.partition("=")[0] for flag in argv if flag.startswith("--")}
        if flags - {"--resume", "--quiet", "--save-every"}:
            raise InputError(
                "--resume RUN has the flags of RUN; give none but --save-every and --quiet"
            )
        from minigpt.runs.journal import read_header  # which loads torch

        given, argv = typed, read_header(Path(typed.resume))["typed"]
        typed = parser.parse_args(argv)
        typed.resume, typed.quiet = given.resume, given.quiet
        if given.save_every != parser.get_default("save_every"):
            typed.save_every = given.save_every
    if typed.compile and not shutil.which(os.environ.get("CXX", "c++")):
        raise InputError("--compile needs a C++ compiler, and there is none here; leave it out")
    if typed.freeze_trunk and typed.warm_head:
        raise InputError("--freeze-trunk --warm-head: with a frozen trunk nothing comes after")
    of_lora = (typed.lora_on, typed.lora_alpha, typed.lora_dropout)
    if typed.lora is None and any(flag is not None for flag in of_lora):
        raise InputError("--lora-on, --lora-alpha and --lora-dropout go with --lora R")
    if typed.in_last is not None and typed.lora is None and typed.adapter is None:
        raise InputError("--in-last goes with --lora or --adapter")
    typed.argv = argv
    return typed
