"""Every way to tune, side by side: who learns, how much of it, and what it comes to.

    python benchmarks/ladder.py [--weights W] [--data D] [--seeds N] [--only ROW[,ROW]]

Each row is a run of train.py for each seed, with its defaults, in a process of its own with an
empty cache. Memory is the most that a process held, 300 MB of which are for importing torch.
Accuracy on test: the mean over seeds, and the least and the most. A seed decides the order of the
texts, the values that what is new begins with, and dropout.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from minigpt.cli.flags import at_least

ROWS = {
    "head": ("the head only", ["--freeze-trunk"]),
    "lp-ft": ("the head, then everything (LP-FT)", ["--warm-head", "20"]),
    "last-1": ("the last block", ["--train-last", "1"]),
    "last-2": ("the last two blocks", ["--train-last", "2"]),
    "norms": ("layer norms", ["--train-only", "norms"]),
    "bitfit": ("biases (BitFit)", ["--train-only", "bitfit"]),
    "lora": ("LoRA, rank 8", ["--lora", "8"]),
    "lora-last": ("LoRA, rank 8, in the last block", ["--lora", "8", "--in-last", "1"]),
    "adapter": ("adapters of 16", ["--adapter", "16"]),
    "prompt": ("a prompt of 16", ["--prompt", "16"]),
    "prefix": ("a prefix of 16", ["--prefix", "16"]),
    "all": ("everything", []),
}
TRAIN = Path(__file__).parent.parent / "train.py"


def measure(flags: list[str]) -> dict:
    """Run train.py; return its metrics."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(TRAIN), *flags, "--quiet", "--out", f"{folder}/run"]
        env = os.environ | {"MINIGPT_CACHE": f"{folder}/cache"}
        run = subprocess.run(command, env=env, capture_output=True, text=True)
        if run.returncode:
            sys.exit(run.stderr)
        return json.loads(Path(folder, "run/metrics.json").read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", default="tiny", help="as of train.py")
    parser.add_argument("--data", default="mirrored", help="as of train.py")
    parser.add_argument("--seeds", type=at_least(1), default=3)
    parser.add_argument("--only", default=",".join(ROWS), help=f"of {', '.join(ROWS)}")
    args = parser.parse_args()
    if unknown := {*args.only.split(",")} - ROWS.keys():
        parser.error(f"--only: {', '.join(sorted(unknown))}? there are {', '.join(ROWS)}")

    print(f"{args.weights} on {args.data}, seeds 0 to {args.seeds - 1}\n")
    print("| what learns | numbers that learn | share | test accuracy | dev | seconds | memory |")
    print("|---|---|---|---|---|---|---|")
    for row in args.only.split(","):
        name, flags = ROWS[row]
        given = ["--weights", args.weights, "--data", args.data, *flags]
        runs = [measure([*given, "--seed", str(seed)]) for seed in range(args.seeds)]
        learning, total = (runs[0]["freezing"][key] for key in ("learning", "total"))
        test = [run["test"]["accuracy"] for run in runs]
        cells = [
            name,
            f"{learning:,}",
            f"{learning / total:.2%}",
            f"{statistics.mean(test):.1%} ({min(test):.1%} to {max(test):.1%})",
            f"{statistics.mean(run['dev']['accuracy'] for run in runs):.1%}",
            f"{statistics.median(run['seconds']['total'] for run in runs):.0f}",
            f"{max(run['peak_memory_bytes'] for run in runs) / 1e6:,.0f} MB",
        ]
        print("|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
