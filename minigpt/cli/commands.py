"""The commands of python -m minigpt; predict and evaluate have files of their own."""

import sys
import time
from collections.abc import Iterator

from minigpt import __version__
from minigpt.checkpoints import find_checkpoint, open_tokenizer
from minigpt.cli.evaluate import evaluate
from minigpt.cli.flag_types import at_least, named, refuse_run
from minigpt.cli.predict import predict
from minigpt.cli.program import Parser
from minigpt.cli.train_flags import WEIGHTS
from minigpt.datasets import numbered_lines
from minigpt.edge.errors import InputError
from minigpt.export import KINDS, export
from minigpt.fast.packing import packed_to_generate
from minigpt.fast.store import cache_limit, entries, remove, size_of, states_folder, title_of
from minigpt.language.generate import generate_text
from minigpt.weights import load_trunk


def generate(argv: list[str]) -> None:
    """Continue a text, one token after the other; with `-`, each line of stdin."""
    parser = Parser(prog="python -m minigpt generate", description=generate.__doc__)
    add = parser.add_argument
    add("prompt", metavar="PROMPT", help="'-' continues each line of stdin")
    add("--weights", type=named, help=WEIGHTS)
    add("--tokens", type=at_least(1), default=100, help="how many, at most")
    add("--temperature", type=at_least(0.0), default=0.8, help="0: always the likeliest token")
    add("--top-k", type=at_least(1), default=40, help="draw from so many tokens only")
    add("--seed", type=at_least(0, 2**63), default=0, help="of the tokens that are drawn")
    args = parser.parse_intermixed_args(argv)
    refuse_run(args.weights, "generate with those; a run is for predict")
    checkpoint = find_checkpoint(args.weights)
    tokenizer = open_tokenizer(checkpoint)
    trunk = packed_to_generate(load_trunk(checkpoint.folder))
    how = {name: getattr(args, name) for name in ("tokens", "temperature", "top_k", "seed")}
    for prompt in lines_of_stdin() if args.prompt == "-" else [args.prompt]:
        pieces = generate_text(trunk, tokenizer, prompt, **how)
        print(prompt, end=next(pieces), flush=True)  # nothing is printed if the first piece fails
        for piece in pieces:
            print(piece, end="", flush=True)
        print()


def lines_of_stdin() -> Iterator[str]:
    """Yield the lines of stdin without their ends. Raises InputError for one that is not UTF-8."""
    for number, line in numbered_lines(0, "stdin", "utf-8"):
        if isinstance(line, InputError):
            raise InputError(f"stdin, line {number} is not UTF-8; convert it")
        yield line.rstrip("\r\n")


def cache(argv: list[str]) -> None:
    """Show the arrays that earlier runs left to start from, oldest use first."""
    parser = Parser(prog="python -m minigpt cache", description=cache.__doc__)
    parser.add_argument("--clear", action="store_true", help="remove them")
    args = parser.parse_args(argv)
    home, total = states_folder(), 0
    for used, folder in entries(home):
        size, when = size_of(folder), time.localtime(used)
        total += size
        print(
            f"{size / 1e6:12,.1f} MB  {time.strftime('%Y-%m-%d %H:%M', when)}  {title_of(folder)}"
        )
        if args.clear:
            remove(folder, used)
    did = "cleared" if args.clear else f"of at most {cache_limit() / 1e6:,.1f} MB"
    print(f"{total / 1e6:12,.1f} MB  {did}, in {home}")


def export_(argv: list[str]) -> None:
    """Write a run as a folder that transformers opens, or the peft library."""
    parser = Parser(prog="python -m minigpt export", description=export_.__doc__)
    parser.add_argument("run", metavar="RUN", help="the folder that train.py made")
    parser.add_argument("--to", required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--as", dest="kind", default=KINDS[0], choices=KINDS, help="what opens it")
    args = parser.parse_args(argv)
    how = export(args.run, args.to, args.kind)
    print(f"{args.to} is written; it opens with\n\n{how}")


def explain(argv: list[str]) -> None:
    """Show by experiments how the last token knows the rating of the whole text."""
    from minigpt.explain import run as explain  # what draws is loaded for no other command

    explain.explain(argv)


COMMANDS = {
    "predict": predict,
    "evaluate": evaluate,
    "generate": generate,
    "explain": explain,
    "export": export_,
    "cache": cache,
}


def main():
    """Hand over to the command that is named first."""
    lines = [f"  {name:10} {does.__doc__.split(chr(10))[0]}" for name, does in COMMANDS.items()]
    parser = Parser(
        prog="python -m minigpt",
        description="\n".join(["commands, each with a --help of its own:", *lines]),
    )
    parser.add_argument("--version", action="version", version=f"minigpt {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    COMMANDS[parser.parse_args(sys.argv[1:2]).command](sys.argv[2:])
