"""What each tuning method brings: train.py with its flags, some seeds, on one or more data sets.

    python benchmarks/methods.py mirrored
    python benchmarks/methods.py sst2 path/to/trec --only main

Prints, and keeps in docs/methods.json, the test accuracy of each run, beside that of counting words
(scikit-learn: TF-IDF of words and pairs of words, and logistic regression, its C chosen on dev).
What is there already for the same weights, texts and flags is not run again. Two runs at a time,
with one thread each. Needs the test extra: pip install -e .[test]
"""

import argparse
import hashlib
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from tqdm import tqdm

from minigpt.checkpoints import find_checkpoint
from minigpt.datasets import Dataset, load_dataset
from minigpt.edge import files

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "docs" / "methods.json"
MAIN = {  # the README's table
    "a head, at the last token": "--freeze-trunk",
    "a head, at an appended end": "--freeze-trunk --append-end",
    "a head, on the mean of all tokens": "--freeze-trunk --pool mean",
    "a head, at the first token": "--freeze-trunk --pool first",
    "the last two blocks": "--train-last 2",
    "LoRA, rank 8": "--lora 8",
    "everything": "",
}
OTHERS = {  # docs/tuning.md has these, too
    "a head, on the maximum of all tokens": "--freeze-trunk --pool max",
    "the last block": "--train-last 1",
    "the head, then everything (LP-FT)": "--warm-head 20",
    "layer norms": "--train-only norms",
    "biases (BitFit)": "--train-only bitfit",
    "LoRA, rank 8, in the last block": "--lora 8 --in-last 1",
    "adapters of 16": "--adapter 16",
    "a prefix of 16": "--prefix 16",
    "a prompt of 16": "--prompt 16",
}
COUNTING = "counting words (TF-IDF)"


def train(weights: str, data: str, flags: str, seed: int) -> dict:
    """Run train.py in a process of its own, with an empty cache; return what came of it."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "run")
        command = [sys.executable, "train.py", "--quiet", *shlex.split(flags)]
        command += [f"--weights={weights}", f"--data={data}", f"--seed={seed}", f"--out={out}"]
        env = os.environ | {"OMP_NUM_THREADS": "1", "MINIGPT_CACHE": folder}
        subprocess.run(command, check=True, cwd=ROOT, env=env, stdout=subprocess.DEVNULL)
        metrics = json.loads((out / "metrics.json").read_text())
    return {
        "test": metrics["test"]["accuracy"],
        "dev": metrics["dev"]["accuracy"],
        "pairs": metrics["test"].get("pairs", {}).get("in_order"),
        "trained": metrics["freezing"]["learning"],
        "seconds": metrics["seconds"]["total"],
    }


def counting_words(dataset: Dataset) -> dict:
    """Return the test accuracy of a classifier without a model, its C chosen on dev."""
    scores = []
    texts, labels = (
        [[getattr(e, field) for e in split] for split in (dataset.train, dataset.dev, dataset.test)]
        for field in ("text", "label")
    )
    for c in (0.1, 1, 10, 100):
        words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]")
        model = make_pipeline(words, LogisticRegression(C=c, max_iter=1000)).fit(
            texts[0], labels[0]
        )
        scores.append([model.score(texts[n], labels[n]) for n in (1, 2)])
    dev, test = max(scores, key=lambda score: score[0])  # of equal ones, the heaviest penalty
    return {"test": test, "dev": dev}


def run_all(args) -> dict:
    """Return the results of all runs, by data set, method and seed; keep each as it comes."""
    sha256 = find_checkpoint(args.weights).sha256
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    if kept.get("sha256") != sha256:
        kept = {"weights": args.weights, "sha256": sha256, "data": {}}
    methods, jobs = MAIN if args.only == "main" else MAIN | OTHERS, []
    for data in args.data:
        dataset = load_dataset(data, seed=0)
        texts = hashlib.sha256(repr(dataset).encode()).hexdigest()
        name = Path(dataset.name).name  # of a folder, without its path
        of_data = kept["data"].get(name, {})
        if of_data.get("texts") != texts:
            of_data = {"texts": texts, COUNTING: counting_words(dataset)}
        kept["data"][name] = of_data
        for title, flags in methods.items():
            rows = of_data.setdefault(title, {"flags": flags, "seeds": {}})
            # A head is a convex problem: the order of texts, which a seed decides, hardly matters
            seeds = range(1 if "--freeze-trunk" in flags else args.seeds)
            missing = [seed for seed in seeds if str(seed) not in rows["seeds"]]
            jobs += [(data, flags, seed, rows["seeds"]) for seed in missing]

    def run(job):
        return train(args.weights, *job[:3])

    with ThreadPoolExecutor(2) as pool:
        for job, result in zip(jobs, tqdm(pool.map(run, jobs), total=len(jobs)), strict=True):
            *_, seed, results = job
            results[str(seed)] = result
            files.write(KEPT, json.dumps(kept, indent=1) + "\n")
    return kept


def table(kept: dict, methods: list[str], ranges: bool = True) -> str:
    """Return a Markdown table: the mean of the seeds, with the lowest and the highest."""
    names = [*kept["data"]]
    titles = " | ".join(["what is trained", "parameters", *(f"`{n}`" for n in names)])
    lines = [f"| {titles} |", "|---" * (2 + len(names)) + "|"]
    for title in methods:
        rows = [kept["data"][name].get(title) for name in names]
        if not any(rows):
            continue
        sizes = {run["trained"] for row in rows[:1] if row for run in row.get("seeds", {}).values()}
        cells = [f"{size:,}" for size in sizes] or [""]
        for row in rows:
            tests = [row["test"]] if row and "test" in row else []
            if row and "seeds" in row:
                tests = [run["test"] for run in row["seeds"].values()]
            cell = f"{100 * statistics.mean(tests):.1f} %" if tests else ""
            if ranges and len(tests) > 1:
                cell += f" ({100 * min(tests):.1f} – {100 * max(tests):.1f})"
            cells.append(cell)
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", nargs="+", help="as --data of train.py")
    parser.add_argument("--weights", default="tiny")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on; of a head, one")
    parser.add_argument("--only", choices=["main"], help="the methods of the README's table")
    print(table(run_all(parser.parse_args()), [COUNTING, *MAIN, *OTHERS]))


if __name__ == "__main__":
    main()
