"""The flags of train.py, and what suits where they are left out."""

import contextlib
import os
import re
import shutil
from pathlib import Path

from minigpt.checkpoints import Checkpoint
from minigpt.classifier import POOLINGS
from minigpt.cli.flags import DEVICES, DTYPES, above_zero, at_least, named
from minigpt.cli.program import Parser
from minigpt.datasets.load import NAMED
from minigpt.edge.errors import InputError
from minigpt.head import HEAD
from minigpt.peft.methods import method_of, room_for_text
from minigpt.runs.journal import STATE, read_about

WEIGHTS = "gpt2[-medium|-large|-xl], tiny, a folder, or ORG/REPO"
DATA = "mirrored (default), sst2, a .tsv/.csv/.jsonl file, or a folder"
ONLY = "tensors by their names, or bitfit (all biases), or norms (layer norms)"
EPOCHS = "default: 20 for a frozen trunk; else 3, or 6 for fewer than 5,000 texts"


def parse(description: str, argv: list[str] | None = None):
    """Read the flags, those of the command line if no others; raise InputError for those that
    contradict each other.
    """
    parser = Parser(description=description.split("\n")[0])
    add = parser.add_argument
    add("--weights", type=named, help=WEIGHTS)
    add("--data", type=named, default="mirrored", help=DATA)

    group = parser.add_argument_group("what learns beside the head (default: everything)")
    one = group.add_mutually_exclusive_group().add_argument
    one("--freeze-trunk", action="store_true", help="nothing")
    one("--train-last", type=int, metavar="N", help="the last N blocks and ln_f")
    one("--train-only", metavar="GLOB[,GLOB]", help=ONLY)
    one("--lora", type=int, metavar="R", help="LoRA of rank R (Hu et al. 2021)")
    one("--adapter", type=int, metavar="R", help="adapters of bottleneck R (Houlsby et al. 2019)")
    one("--prompt", type=int, metavar="N", help="N vectors before each text (Lester et al. 2021)")
    one("--prefix", type=int, metavar="N", help="N keys and values a block (Li & Liang 2021)")
    more = group.add_argument
    more("--in-last", type=int, metavar="N", help="LoRA or adapters in the last N blocks only")
    more("--lora-on", metavar="GLOB[,GLOB]", help="layers by name or its end; default: c_attn")
    more("--lora-alpha", type=above_zero, metavar="A", help="scales by A / R; default: 2 R")
    more("--lora-dropout", type=at_least(0.0, 1.0), metavar="P", help="on its input; default: 0")
    more("--warm-head", type=at_least(1), metavar="E", help="E epochs of the head alone, first")

    add("--pool", default="last", choices=POOLINGS)
    add("--append-end", action="store_true", help="put <|endoftext|> after each text")
    add("--epochs", type=at_least(1), help=EPOCHS)
    add("--batch-size", type=at_least(1), default=32)
    add("--lr", type=above_zero, help="default: by what learns and the trunk's width")
    add("--weight-decay", type=at_least(0.0), help="default: 1 for a frozen trunk, else 0.1")
    add("--warmup", type=at_least(0.0, 1.0), default=0.1, help="share of the steps")
    add("--clip", type=above_zero, default=1.0, help="the largest norm of the gradient")
    add("--accumulate", type=at_least(1), default=1, help="batches to a gradient step")
    add("--dropout", type=at_least(0.0, 1.0), help="of what learns; default: as config.json, 0.1")
    add("--max-length", type=at_least(1), help="tokens kept of a text; default: the context")
    add("--seed", type=at_least(0, 2**63), default=0)
    add("--device", default="auto", choices=DEVICES)
    add("--dtype", default="auto", choices=DTYPES, help="of the trunk; auto: bfloat16 on GPUs")
    add("--compile", action="store_true", help="compile the blocks: for long runs")
    add("--out", type=named, help="folder for the run (default: runs/NAME, made from the choices)")
    add("--save-every", type=at_least(0.0), default=60.0, metavar="S", help="seconds; default: 60")
    add("--resume", type=named, metavar="RUN", help="go on with a run that was stopped")
    add("--quiet", action="store_true", help="print the last table only")
    args = parser.parse_args(argv)
    if args.resume:
        args = flags_of_run(parser, args)
    if args.compile and not shutil.which(os.environ.get("CXX", "c++")):
        raise InputError("--compile needs a C++ compiler, and there is none here; leave it out")
    if args.freeze_trunk and args.warm_head:
        raise InputError("--freeze-trunk --warm-head: with a frozen trunk nothing comes after")
    own = (args.lora_on, args.lora_alpha, args.lora_dropout)
    if args.lora is None and any(flag is not None for flag in own):
        raise InputError("--lora-on, --lora-alpha and --lora-dropout go with --lora R")
    if args.lora is not None:
        args.lora_on = "c_attn" if args.lora_on is None else args.lora_on
        args.lora_alpha = args.lora_alpha or 2.0 * args.lora
        args.lora_dropout = args.lora_dropout or 0.0
    if args.in_last is not None and args.lora is None and args.adapter is None:
        raise InputError("--in-last goes with --lora or --adapter")
    return args


def flags_of_run(parser: Parser, args):
    """Return the flags that a run was started with, read as if they had been typed again."""
    folder = Path(args.resume)
    flags = read_about(folder)["flags"]
    own = ("resume", "quiet", "save_every")
    if any(getattr(args, name) != parser.get_default(name) for name in vars(args).keys() - {*own}):
        raise InputError(
            "--resume RUN has the flags of RUN; give none but --save-every and --quiet"
        )
    typed = [f"--resume={folder}"]
    for name, value in flags.items():
        if value is not None and value is not False:
            flag = f"--{name.replace('_', '-')}"
            typed.append(flag if value is True else f"{flag}={value}")
    again = None
    if flags.keys() | {"resume"} == vars(args).keys():
        with contextlib.suppress(InputError):
            again = parser.parse_args(typed)
    if again is None or vars(again) != flags | {"resume": args.resume}:
        raise InputError(f"{folder / STATE} has flags that train.py has not; start the run again")
    again.quiet = args.quiet
    if args.save_every != parser.get_default("save_every"):
        again.save_every = args.save_every
    return again


# Learning rate times n_embd, for what is small or new: found on mirrored's dev split, with tiny
RATES = {"lora": 0.5, "adapter": 0.8, "prompt": 2.5, "prefix": 8.0, "vectors": 1.3}


def settle(args, checkpoint: Checkpoint, vectors: bool, texts: int) -> None:
    """Give the flags that were left out what suits what learns, and the sizes of trunk and data.

    `vectors`: of the trunk, only biases and gains learn. Matrices learn at 32 / n_embd², which is
    what dev asked for with tiny (5e-4), and near what is usual for gpt2 (5e-5).
    """
    config = checkpoint.config
    args.weights = checkpoint.name
    if args.data not in NAMED and Path(args.data).exists():
        args.data = os.path.abspath(args.data)  # so that it is found from another folder, too
    if args.freeze_trunk:
        usual = HEAD.epochs, HEAD.lr, HEAD.weight_decay
    else:
        rate = RATES.get("vectors" if vectors else method_of(vars(args)))
        lr = rate / config.n_embd if rate else min(1e-3, 32 / config.n_embd**2)
        usual = 3 if texts >= 5000 else 6, lr, 0.1
    for name, value in zip(("epochs", "lr", "weight_decay"), usual, strict=True):
        if getattr(args, name) is None:
            setattr(args, name, value)
    least, most = room_for_text(config, vars(args))
    if most < least:
        raise InputError(f"no room is left for a text in a context of {config.n_positions} tokens")
    args.max_length = args.max_length or most
    if not least <= args.max_length <= most:
        raise InputError(f"--max-length {args.max_length}: it can be {least} to {most} tokens here")


def policy_name(args) -> str:
    """Return what learns beside the head, as the flags say it."""
    if args.freeze_trunk:
        return "freeze-trunk"
    first = f"warm-head {args.warm_head}, " if args.warm_head else ""
    if (method := method_of(vars(args))) is not None:
        where = f" in-last {args.in_last}" if args.in_last else ""
        on = f" on {args.lora_on}" if args.lora and args.lora_on != "c_attn" else ""
        return f"{first}{method} {vars(args)[method]}{on}{where}"
    if args.train_last is not None:
        return f"{first}train-last {args.train_last}"
    return first + (f"train-only {args.train_only}" if args.train_only else "everything")


def run_name(args, weights: str, data: str) -> Path:
    """Return where a run goes for which no --out is given: in runs/, named after the choices."""
    names = [Path(weights).name, Path(data).stem, policy_name(args), args.pool]
    names.append("end" * args.append_end)
    return Path("runs", re.sub(r"[^a-zA-Z0-9_.]+", "-", "-".join(filter(None, names)))[:100])
