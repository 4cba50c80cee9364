"""python -m minigpt export: a run as a folder for other libraries."""

from minigpt.cli.program import Parser
from minigpt.export import KINDS, to_folder


def export(argv: list[str]) -> None:
    """Write a run as a folder that transformers opens, or the peft library."""
    parser = Parser(prog="python -m minigpt export", description=export.__doc__)
    parser.add_argument("run", metavar="RUN", help="the folder that train.py made")
    parser.add_argument("--to", required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--as", dest="kind", default=KINDS[0], choices=KINDS, help="what opens it")
    args = parser.parse_args(argv)
    how = to_folder.export(args.run, args.to, args.kind)
    print(f"{args.to} is written; it opens with\n\n{how}")
