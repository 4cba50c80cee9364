"""`python -m minigpt explain`: experiments that answer the question, and pictures to look at."""

import json
import os
import platform
import shlex
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from minigpt.cli.flags import DEVICES, device_of, named
from minigpt.cli.program import Parser
from minigpt.edge.errors import InputError
from minigpt.explain import experiments, ladder, plots, style, travel, words
from minigpt.explain.bench import Bench, open_bench
from minigpt.explain.page import write_page
from minigpt.explain.reading import reading
from minigpt.fast.memory import reuse_memory

EXPERIMENTS = {
    "pooling": experiments.pooling,
    "where": experiments.where,
    "controls": experiments.controls,
    "knock-out": travel.knock_out,
    "patching": travel.patching,
    "words": words.words,
    "ladder": ladder.ladder,
    "reading": reading,
}


def chosen(names: str | None) -> list[str]:
    """Return the experiments that --only names, in their order. Raises InputError."""
    if names is None:
        return [*EXPERIMENTS]
    wanted = {name.strip() for name in names.split(",")}
    if unknown := sorted(wanted - EXPERIMENTS.keys()):
        raise InputError(
            f"--only {unknown[0]}: no such experiment; there are {', '.join(EXPERIMENTS)}"
        )
    return [name for name in EXPERIMENTS if name in wanted]


def explain(argv: list[str]) -> None:
    """Show by experiments how the last token knows the rating of the whole text."""
    parser = Parser(prog="python -m minigpt explain", description=explain.__doc__)
    parser.add_argument("--weights", type=named, help="gpt2, tiny, a folder, or ORG/REPO")
    parser.add_argument("--data", type=named, default="mirrored", help="as of train.py")
    parser.add_argument("--only", metavar="NAME[,NAME]", help=f"of {', '.join(EXPERIMENTS)}")
    parser.add_argument("--text", action="append", default=[], help="a sentence to read; repeat it")
    parser.add_argument("--out", type=named, default="explain", metavar="DIR")
    parser.add_argument("--device", default="auto", choices=DEVICES)
    args = parser.parse_args(argv)
    names, began = chosen(args.only), time.monotonic()
    reuse_memory()  # the ladder trains
    if args.text and "reading" not in names:
        raise InputError("--text is for the experiment `reading`, which --only leaves out")
    out = check_place(args.out)
    bench = open_bench(args.weights, args.data, device_of(args.device), args.text)
    about = describe(bench, argv)
    counts = ", ".join(f"{about['data'][split]} {split}" for split in bench.tokens)
    print(f"{bench.checkpoint.name} on {bench.dataset.name}: {counts} texts")
    if cut := about["data"]["truncated"]:
        print(f"{cut} of them are longer than the context: their last token is not the text's")
    print()
    found = {name: run(name, bench) for name in names}
    about["seconds"] = round(time.monotonic() - began, 1)
    page = write(out, {"about": about, "experiments": found})
    print(f"\n{about['seconds']} s; look at {page}")


def run(name: str, bench: Bench) -> dict:
    """Run one experiment, and say in a line what it found."""
    start = time.monotonic()
    found = EXPERIMENTS[name](bench)
    said = f"skipped: {found['skipped']}" if "skipped" in found else found["finding"]
    print(f"{name:10} {said}", flush=True)
    return found | {"seconds": round(time.monotonic() - start, 1)}


def describe(bench: Bench, argv: list[str]) -> dict:
    """Return what the results stand on."""
    config = bench.trunk.config
    return {
        "weights": {
            "name": bench.checkpoint.name,
            "sha256": bench.checkpoint.sha256,
            "parameters": sum(p.numel() for p in bench.trunk.parameters()),
            "layers": config.n_layer,
            "heads": config.n_head,
            "width": config.n_embd,
        },
        "data": {
            "name": bench.dataset.name,
            "labels": bench.labels,
            **{split: len(texts) for split, texts in bench.tokens.items()},
            "truncated": sum(texts.truncated for texts in bench.tokens.values()),
            "pairs": len({e.pair for e in bench.examples("test") if e.pair}),
        },
        "seed": bench.seed,
        "device": bench.device,
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "command": shlex.join(["python", "-m", "minigpt", "explain", *argv]),
    }


def check_place(out: str) -> Path:
    """Return the folder to write, before any work; raise InputError if it holds something else."""
    folder = Path(out)
    there = folder.exists()
    if there and not folder.is_dir():
        raise InputError(f"--out {out} is no folder; choose another name")
    if there and any(folder.iterdir()) and not (folder / "results.json").is_file():
        raise InputError(f"--out {out} is not empty, and not of an earlier explain; choose another")
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        tempfile.TemporaryDirectory(dir=nearest).cleanup()
    except OSError as error:
        raise InputError(f"--out {out} cannot be written ({error.strerror})") from None
    return folder


def write(folder: Path, results: dict) -> Path:
    """Write results.json, the figures and the page, each of them whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
    try:
        text = json.dumps(results, indent=1, allow_nan=False)
        (new / "results.json").write_text(text + "\n", encoding="utf-8")
        figures = {}
        for name, result in results["experiments"].items():
            if name in plots.PLOTS and "skipped" not in result:
                figure = plots.draw(name, result, results["about"])
                style.save(figure, new / name)
                figures[name] = style.svg(figure)
        write_page(results, figures, new / "index.html")
        results_first = sorted(new.iterdir(), key=lambda file: file.name != "results.json")
        for file in results_first:  # by which the folder is known for an earlier explain's
            os.replace(file, folder / file.name)
        for name in plots.PLOTS.keys() - figures.keys():  # of an earlier explain
            for suffix in (".png", ".svg"):
                (folder / f"{name}{suffix}").unlink(missing_ok=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return folder / "index.html"
