"""`python -m minigpt explain`: runs the experiments, and writes their results, figures and page."""

import json
import os
import platform
import shlex
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from minigpt.cli.devices import device_of
from minigpt.cli.flag_types import DEVICES, named
from minigpt.cli.program import Parser
from minigpt.cli.train_flags import WEIGHTS
from minigpt.edge.errors import InputError
from minigpt.edge.files import NEW, check_output_folder
from minigpt.explain import (
    arrival,
    controls,
    figures,
    heads,
    knock_out,
    ladder,
    patching,
    pooling,
    reading,
    where,
    words,
)
from minigpt.explain.in_browser import for_page
from minigpt.explain.page import write_page
from minigpt.explain.study import Study, open_study
from minigpt.fast import reuse_memory

EXPERIMENTS = {  # each has `measure(study)`, which returns plain values, and `draw(result)`
    "pooling": pooling,
    "where": where,
    "controls": controls,
    "knock-out": knock_out,
    "patching": patching,
    "heads": heads,
    "words": words,
    "ladder": ladder,
    "reading": reading,
    "arrival": arrival,
}


def selected(names: str | None, quick: bool) -> list[str]:
    """Return the experiments that --only names, in their order. Raises InputError."""
    if names is None:
        return [name for name in EXPERIMENTS if not (quick and name == "ladder")]
    wanted = {name.strip() for name in names.split(",")}
    if unknown := sorted(wanted - EXPERIMENTS.keys()):
        raise InputError(
            f"--only {unknown[0]}: no such experiment; there are {', '.join(EXPERIMENTS)}"
        )
    return [name for name in EXPERIMENTS if name in wanted]


def explain(argv: list[str]) -> None:
    """Show by experiments how the last token can contain the rating of the whole text."""
    parser = Parser(prog="python -m minigpt explain", description=explain.__doc__)
    parser.add_argument("--weights", type=named, help=WEIGHTS)
    parser.add_argument("--data", type=named, default="mirrored", help="as for train.py")
    parser.add_argument(
        "--only", metavar="NAME[,NAME]", help=f"of {', '.join(EXPERIMENTS)}; default: all"
    )
    parser.add_argument("--quick", action="store_true", help="leave out the ladder, which trains")
    parser.add_argument("--text", action="append", default=[], help="a text to read; repeatable")
    parser.add_argument(
        "--out", type=named, default="explain", metavar="DIR", help="folder to write"
    )
    parser.add_argument("--device", default="auto", choices=DEVICES, help="where it computes")
    args = parser.parse_args(argv)
    names, began = selected(args.only, args.quick), time.monotonic()
    if args.quick and "ladder" in names:
        raise InputError("--quick leaves out the ladder, which --only names; leave out one of them")
    if args.text and "reading" not in names:
        raise InputError("--text is for the experiment `reading`, which --only leaves out")
    figures.require_matplotlib()
    check_output_folder(args.out, own="results.json")  # or the folder of an earlier explain
    reuse_memory()  # the ladder trains
    study = open_study(args.weights, args.data, device_of(args.device), args.text)
    about = setup_of(study, argv)
    counts = ", ".join(f"{about['data'][split]} {split}" for split in study.tokens)
    print(f"{study.checkpoint.name} on {study.dataset.name}: {counts} texts")
    if truncated := about["data"]["truncated"]:
        print(f"{truncated} texts are longer than the context: their last token is not the text's")
    print()
    results = {name: run(name, study) for name in names}
    about["seconds"] = round(time.monotonic() - began, 1)
    trunk = for_page(study)
    page = write_results(Path(args.out), {"about": about, "experiments": results}, trunk)
    print(f"\n{about['seconds']} s; open {page}")


def run(name: str, study: Study) -> dict:
    """Run one experiment, and print its finding in a line."""
    start = time.monotonic()
    result = EXPERIMENTS[name].measure(study)
    line = f"skipped: {result['skipped']}" if "skipped" in result else result["finding"]
    print(f"{name:10} {line}", flush=True)
    return result | {"seconds": round(time.monotonic() - start, 1)}


def setup_of(study: Study, argv: list[str]) -> dict:
    """Return what the results depend on."""
    config = study.trunk.config
    return {
        "weights": {
            "name": study.checkpoint.name,
            "sha256": study.checkpoint.sha256,
            "parameters": sum(p.numel() for p in study.trunk.parameters()),
            "layers": config.n_layer,
            "heads": config.n_head,
            "width": config.n_embd,
        },
        "data": {
            "name": study.dataset.name,
            "labels": study.labels,
            **{split: len(texts) for split, texts in study.tokens.items()},
            "truncated": sum(texts.truncated for texts in study.tokens.values()),
            "pairs": len({e.pair for e in study.examples("test") if e.pair}),
        },
        "seed": study.seed,
        "device": study.device,
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "command": shlex.join(["python", "-m", "minigpt", "explain", *argv]),
    }


def write_results(folder: Path, results: dict, trunk: dict | str) -> Path:
    """Write results.json, the figures and the page, each whole or not at all; return the page.

    The page contains the trunk, or says why not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=NEW, dir=folder, ignore_cleanup_errors=True) as made:
        new = Path(made)
        text = json.dumps(results, indent=1, allow_nan=False)
        (new / "results.json").write_text(text + "\n", encoding="utf-8")
        drawn = {}
        for name, result in results["experiments"].items():
            if "skipped" not in result:
                with figures.in_style():  # matplotlib looks it up for each line and text
                    figure = EXPERIMENTS[name].draw(result)
                drawn[name] = figures.save(figure, new / name)
        write_page(results, drawn, new / "index.html", trunk)
        # results.json first: by it, check_output_folder recognizes the folder
        for file in sorted(new.iterdir(), key=lambda file: file.name != "results.json"):
            os.replace(file, folder / file.name)
        for name in EXPERIMENTS.keys() - drawn.keys():  # of an earlier explain
            for suffix in (".png", ".svg"):
                (folder / f"{name}{suffix}").unlink(missing_ok=True)
    return folder / "index.html"
