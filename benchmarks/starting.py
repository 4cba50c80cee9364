"""What it takes to start: whole processes, measured in turns with `python -c "import torch"`.

    python benchmarks/starting.py --times 5

prints, for each command, the seconds it takes beyond the import of torch, of which a process that
computes cannot do without; median and lowest, of the clock and of the processor. A run on
mirrored with a frozen trunk has been made before, so that its vectors are in the cache.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
JOB = ["train.py", "--freeze-trunk", "--weights", "tiny", "--quiet"]


def seconds(command: list[str], env: dict) -> tuple[float, float]:
    """Run python with a command; return the seconds of the clock and of the processor."""
    before, began = os.times(), time.perf_counter()
    subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE
    )
    clock, after = time.perf_counter() - began, os.times()
    used = after.children_user + after.children_system
    return clock, used - before.children_user - before.children_system


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--times", type=int, default=5, help="how often each is run")
    times = parser.parse_args().times
    with tempfile.TemporaryDirectory() as home:
        env = os.environ | {"MINIGPT_CACHE": home, "HF_HUB_OFFLINE": "1"}
        seconds([*JOB, f"--out={home}/run"], env)
        torch = ["-c", "import torch"]
        commands = {
            'python -c "import torch"': lambda _: torch,
            "train.py --help": lambda _: ["train.py", "--help"],
            "predict, one text": lambda _: ["-m", "minigpt", "predict", f"{home}/run", "A film."],
            "train.py --freeze-trunk, all in the cache": lambda i: [*JOB, f"--out={home}/{i}"],
        }
        taken = {name: [] for name in commands}
        for i in range(times):
            for name, command in commands.items():
                taken[name].append(seconds(command(i), env))
    base = None
    print(f"{'':44}{'clock':>8}{'lowest':>8}{'cpu':>8}{'lowest':>8}")
    for name, pairs in taken.items():
        figures = [f(kind) for kind in zip(*pairs, strict=True) for f in (statistics.median, min)]
        base = base or figures
        beyond = name in list(commands)[2:]
        shown = [a - b for a, b in zip(figures, base, strict=True)] if beyond else figures
        print(f"{'+ ' * beyond + name:44}" + "".join(f"{value:8.2f}" for value in shown))


if __name__ == "__main__":
    main()
