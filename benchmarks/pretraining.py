"""Which change of the recipe of weights/tiny lowers the held-out loss, one thing at a time?

    python benchmarks/pretraining.py reviews-1.txt reviews-2.txt --tokens 4e6 --out trials

Pre-trains on a small budget with each change and prints the held-out loss that it reaches, in nats
a token; no label is looked at. A trial is kept under --out, and resumes there. (How many reviews
are split is not among the changes: those held out are, so that splitting would be favoured.)
"""

import argparse
import importlib.util
from pathlib import Path

import torch

RECIPE = Path(__file__).parent.parent / "weights" / "tiny" / "pretrain.py"
TRIALS = {
    "as it is": {},
    "peak rate 1.5e-3": {"PEAK": 1.5e-3},
    "peak rate 6e-3": {"PEAK": 6e-3},
    "steps of 16 windows": {"BATCH": 16},
    "steps of 64 windows": {"BATCH": 64},
    "falling over the last 80 %": {"DECAY": 0.8},
    "weight decay 0.3": {"WEIGHT_DECAY": 0.3},
    "another seed": {"SEED": 1},
}


def open_recipe():
    """Return a new copy of pretrain.py, as a module whose constants may be changed."""
    spec = importlib.util.spec_from_file_location("pretrain", RECIPE)
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    return recipe


def run(changes: dict, reviews: list[str], tokens: float, out: Path, name: str) -> float:
    """Pre-train with some constants changed; return the loss on all that is held out."""
    recipe = open_recipe()
    ids, held_out = recipe.prepare(reviews, out)
    for constant, value in changes.items():
        setattr(recipe, constant, value)
    torch.compiler.reset()
    folder = out / f"{name} {tokens:.0f}".replace(" ", "_")
    (folder / "state").mkdir(parents=True, exist_ok=True)
    return recipe.pretrain(ids, held_out, tokens, folder)["held_out"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("reviews", nargs="+", help="text files, one review a line")
    parser.add_argument("--tokens", type=float, default=4e6, help="the budget of each trial")
    parser.add_argument("--only", nargs="*", default=list(TRIALS), choices=TRIALS, metavar="TRIAL")
    parser.add_argument("--out", type=Path, default=Path("trials"))
    args = parser.parse_args()
    for name in args.only:
        loss = run(TRIALS[name], args.reviews, args.tokens, args.out, name)
        print(f"{name:28} {loss:.3f}", flush=True)


if __name__ == "__main__":
    main()
