"""Opening a 124M file in the official layout: ours against transformers' `from_pretrained`.

    python benchmarks/opening.py [--times N]

Writes random weights to a temporary folder, then opens them in new processes, ours and theirs by
turns. Prints seconds after the imports, and the memory that opening adds once each weight has been
read. The first opening of a file takes its hash; that is remembered until the file changes.
Needs Linux, and the test extra: pip install -e .[test]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from minigpt.config import GPT2Config
from minigpt.language.initialize import initialize
from minigpt.model import GPT2
from minigpt.weights import save_trunk

START = """
import resource, sys, time, torch
from pathlib import Path
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
"""
OPEN = {
    "ours, the first time": """
import shutil
from minigpt.checkpoints import describe
from minigpt.edge.files import cache_folder
from minigpt.weights import load_trunk
shutil.rmtree(cache_folder(), ignore_errors=True)
before, start = resident(), time.perf_counter()
model = load_trunk(describe("x", Path(sys.argv[1])).folder)
""",
    "ours": """
from minigpt.checkpoints import describe
from minigpt.weights import load_trunk
before, start = resident(), time.perf_counter()
model = load_trunk(describe("x", Path(sys.argv[1])).folder)
""",
    "transformers": """
from transformers import GPT2Model
from transformers.utils import logging
logging.disable_progress_bar()
before, start = resident(), time.perf_counter()
model = GPT2Model.from_pretrained(sys.argv[1])
""",
}
END = """
seconds = time.perf_counter() - start
total = sum(p.detach().sum().item() for p in model.parameters())
print("\\n", seconds, resident() - before)
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--times", type=int, default=5)
    times = parser.parse_args().times
    with tempfile.TemporaryDirectory() as folder:
        save_trunk(initialize(GPT2(GPT2Config())), Path(folder))
        for name in ("vocab.json", "merges.txt"):
            Path(folder, name).write_text(json.dumps({}))
        size = Path(folder, "model.safetensors").stat().st_size
        time.sleep(3)  # the hash of a file this young would not be remembered
        env = os.environ | {"MINIGPT_CACHE": f"{folder}/cache"}
        measured = {name: [] for name in OPEN}
        for _ in range(times):
            for name, code in OPEN.items():
                command = [sys.executable, "-c", START + code + END, folder]
                out = subprocess.run(command, env=env, capture_output=True, text=True).stdout
                measured[name].append([float(x) for x in out.split()[-2:]])
    print(f"a file of {size / 1e6:.0f} MB, medians of {times}")
    print(f"{'':20}{'seconds':>10}{'ratio':>8}{'memory added, MB':>18}")
    theirs = statistics.median(seconds for seconds, _ in measured["transformers"])
    for name, rows in measured.items():
        seconds, added = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{name:20}{seconds:10.3f}{seconds / theirs:8.2f}{added / 1e6:18.0f}")


if __name__ == "__main__":
    main()
