"""python -m minigpt cache: what earlier runs left to start from."""

import time

from minigpt.cli.program import Parser
from minigpt.fast.store import cache_limit, entries, remove, size_of, states_folder, title_of


def cache(argv: list[str]) -> None:
    """Show the arrays that earlier runs left to start from, oldest use first."""
    parser = Parser(prog="python -m minigpt cache", description=cache.__doc__)
    parser.add_argument("--clear", action="store_true", help="remove them")
    args = parser.parse_args(argv)
    home, total = states_folder(), 0
    for used, folder in entries(home):
        size, when = size_of(folder), time.localtime(used)
        line = f"{time.strftime('%Y-%m-%d %H:%M', when)}  {title_of(folder)}"
        if args.clear and not remove(folder, used):
            line += ": not cleared; a process may still write it (for a day), or it is not yours"
            size = 0
        total += size
        print(f"{size / 1e6:12,.1f} MB  {line}")
    did = "cleared" if args.clear else f"of at most {cache_limit() / 1e6:,.1f} MB"
    print(f"{total / 1e6:12,.1f} MB  {did}, in {home}")
