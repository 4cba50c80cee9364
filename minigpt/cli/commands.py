"""The commands of python -m minigpt, but for predict, which has a file of its own."""

import sys
import time

from minigpt.checkpoints import find_checkpoint, open_tokenizer
from minigpt.cli.flag_types import at_least
from minigpt.cli.predict import predict
from minigpt.cli.program import Parser
from minigpt.export import KINDS, export
from minigpt.fast.packing import packed_to_generate
from minigpt.fast.store import cache_limit, entries, remove, size_of, states_folder, title_of
from minigpt.language.generate import generate_text
from minigpt.weights import load_trunk


def generate(argv: list[str]) -> None:
    """Continue a text, one token after the other."""
    parser = Parser(prog="python -m minigpt generate", description=generate.__doc__)
    parser.add_argument("prompt", metavar="PROMPT")
    parser.add_argument("--weights", help="gpt2, tiny, a folder, or ORG/REPO")
    parser.add_argument("--tokens", type=at_least(1), default=100)
    parser.add_argument("--temperature", type=at_least(0.0), default=0.8, help="0: the likeliest")
    parser.add_argument("--top-k", type=at_least(1), default=40)
    parser.add_argument("--seed", type=at_least(0, 2**63), default=0)
    args = parser.parse_intermixed_args(argv)
    checkpoint = find_checkpoint(args.weights)
    tokenizer = open_tokenizer(checkpoint)
    trunk = packed_to_generate(load_trunk(checkpoint.folder))
    how = {name: getattr(args, name) for name in ("tokens", "temperature", "top_k", "seed")}
    pieces = generate_text(trunk, tokenizer, args.prompt, **how)
    print(args.prompt, end=next(pieces), flush=True)  # nothing is printed if the first piece fails
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


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
    parser.add_argument("--as", dest="kind", default=KINDS[0], choices=KINDS)
    args = parser.parse_args(argv)
    how = export(args.run, args.to, args.kind)
    print(f"{args.to} is written; it opens with\n\n{how}")


def explain(argv: list[str]) -> None:
    """Show by experiments how the last token knows the rating of the whole text."""
    from minigpt.explain import run as explain  # what draws is loaded for no other command

    explain.explain(argv)


COMMANDS = {
    "predict": predict,
    "generate": generate,
    "explain": explain,
    "export": export_,
    "cache": cache,
}


def main():
    """Hand over to the command that is named first."""
    parser = Parser(prog="python -m minigpt", epilog="each has a --help of its own")
    parser.add_argument("command", choices=COMMANDS)
    COMMANDS[parser.parse_args(sys.argv[1:2]).command](sys.argv[2:])
