"""The commands of python -m minigpt, and of minigpt, which is the same."""

import importlib
import sys

from minigpt import __version__
from minigpt.cli.program import Parser, errors_for_people, load_torch

# Each is a function in a file of its own, both of the same name, that is loaded when it is called:
# what one of them needs, the others do not wait for
COMMANDS = {
    "train": "Train a classifier, as python train.py does.",
    "predict": "Classify texts with a trained run.",
    "evaluate": "Measure a run on other labelled texts: the table that training ends with.",
    "generate": "Continue a text, one token after the other; with `-`, each line of stdin.",
    "explain": "Show by experiments how the last token can contain the rating of the whole text.",
    "export": "Write a run as a folder that transformers opens, or the peft library.",
    "cache": "Show the arrays that earlier runs left to start from, oldest use first.",
}


def command(name: str):
    """Return the function that is a command."""
    return getattr(importlib.import_module(f"minigpt.cli.{name}"), name)


def main() -> None:
    """Hand over to the command that is named first."""
    lines = [f"  {name:10} {does}" for name, does in COMMANDS.items()]
    parser = Parser(
        prog="python -m minigpt",
        description="\n".join(["commands, each with a --help of its own:", *lines]),
    )
    parser.add_argument("--version", action="version", version=f"minigpt {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    name = parser.parse_args(sys.argv[1:2]).command
    if name != "train":  # which reads its flags first
        load_torch()
    command(name)(sys.argv[2:])


def program() -> None:
    """Be the program minigpt: what is installed with the package, and python -m minigpt."""
    with errors_for_people():
        main()
