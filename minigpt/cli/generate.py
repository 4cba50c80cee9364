"""python -m minigpt generate: the language model continues a text."""

from collections.abc import Iterator

from minigpt.checkpoints import find_checkpoint, open_tokenizer
from minigpt.cli.flag_types import at_least, named, refuse_run
from minigpt.cli.program import Parser
from minigpt.cli.train_flags import WEIGHTS
from minigpt.datasets import numbered_lines
from minigpt.edge.errors import InputError
from minigpt.fast.packing import packed_to_generate
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
