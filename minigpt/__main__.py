"""python -m minigpt predict | generate | explain | export | cache"""

import itertools
import json
import sys
import time

import torch

from minigpt.batches import tokenize
from minigpt.cache import cache_limit, entries, remove, size_of, states_folder, title_of
from minigpt.errors import InputError, Parser, errors_for_people
from minigpt.explain import explain
from minigpt.export import KINDS, export
from minigpt.fit import evaluate
from minigpt.flags import DEVICES, at_least, device_of
from minigpt.frozen import FrozenPart
from minigpt.generate import generate_text
from minigpt.packed import packed_to_generate
from minigpt.readers import Example
from minigpt.runs import Run, load_run
from minigpt.tokenizer import load_tokenizer
from minigpt.weights import find_checkpoint, load_trunk


def texts_of(args):
    """Yield the texts to rate, one by one: neither a file nor stdin need fit in memory."""
    if not args.texts and not args.file:
        raise InputError("predict: no text; give TEXT, --file F, or - for stdin")
    for text in args.texts:
        if text == "-":
            yield from lines_of(0, "stdin")
        else:
            yield text
    if args.file:
        yield from lines_of(args.file, args.file)


def lines_of(file: str | int, name: str):
    """Yield the lines of a file, or of file descriptor 0, without their ends."""
    try:
        with open(file, encoding="utf-8-sig", newline="\n", closefd=file != 0) as lines:
            yield from (line.rstrip("\r\n") for line in lines)
    except UnicodeDecodeError:
        raise InputError(f"{name}: not UTF-8; convert it to UTF-8") from None


def rate(run: Run, part: FrozenPart, texts: list[str]) -> torch.Tensor:  # -> (texts, K)
    """Return the probability of each class."""
    examples = [Example(text, run.labels[0]) for text in texts]  # the label is of no account
    tokens = tokenize(examples, run.labels, run.tokenizer, run.max_length, run.append_end)
    return evaluate(run.model, part.of(tokens)).softmax(1)


def predict(argv: list[str]) -> None:
    """Rate texts with a trained run."""
    parser = Parser(prog="python -m minigpt predict", description=predict.__doc__)
    parser.add_argument("run", metavar="RUN", help="of train.py, or of transformers")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="'-' reads lines from stdin")
    parser.add_argument("--file", help="a file with a text on each line")
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    parser.add_argument("--device", default="auto", choices=DEVICES)
    args = parser.parse_intermixed_args(argv)
    run = load_run(args.run, device_of(args.device))
    texts, part = texts_of(args), FrozenPart(run.model)
    while chunk := list(itertools.islice(texts, 1024)):
        for text, row in zip(chunk, rate(run, part, chunk).tolist(), strict=True):
            table = dict(zip(run.labels, row, strict=True))
            label = max(table, key=table.get)
            if args.json:
                found = {"text": text, "label": label, "probability": table[label]}
                print(json.dumps(found | {"probabilities": table}))
            else:
                cells = " ".join(label.split()), f"{table[label]:.3f}", " ".join(text.splitlines())
                print(*cells, sep="\t")


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
    tokenizer = load_tokenizer(checkpoint.folder, checkpoint.config.vocab_size)
    trunk = packed_to_generate(load_trunk(checkpoint))
    how = {name: getattr(args, name) for name in ("tokens", "temperature", "top_k", "seed")}
    pieces = generate_text(trunk, tokenizer, args.prompt, **how)
    print(args.prompt, end=next(pieces), flush=True)  # nothing is said if the first piece fails
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


if __name__ == "__main__":
    with errors_for_people():
        main()
