"""What can be read at the snapshots of a pre-training, for the experiment `arrival`.

weights/tiny/pretrain.py keeps them beside the checkpoint, in state/. They are too large to hand on,
so what was measured on them is stored beside it, too: arrival.json has each data set that was
measured, with the command for it.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from minigpt.checkpoints import Checkpoint, earlier_weights
from minigpt.data import Tokens
from minigpt.datasets import SPLITS, load_dataset
from minigpt.edge import fields, files
from minigpt.edge.progress import bar
from minigpt.explain import words
from minigpt.explain.accuracy import accuracy_of
from minigpt.explain.study import Study
from minigpt.weights import load_trunk

# N texts, C channels, T tokens of the context, K classes

FILE = "arrival.json"
TEMPLATE = " It was"  # the plainest of those in words.py: to choose the best one would take labels
WINDOWS = 64  # of held-out text, the first ones: those of the losses in history.jsonl


def measured_sets(study: Study) -> dict:
    """Return what was measured by data set; this one anew, and stored, if there are snapshots."""
    checkpoint, sets = study.checkpoint, stored_sets(study.checkpoint)
    if snapshots := snapshots_of(checkpoint):
        measured = json.dumps(measure_all(with_all_texts(study), snapshots))
        short = json.loads(measured, parse_float=lambda number: round(float(number), 4))
        stored = {"weights": checkpoint.sha256, "sets": sets | {own_name(study): short}}
        files.write(checkpoint.folder / FILE, json.dumps(stored, indent=1) + "\n")
    return stored_sets(checkpoint)


def own_name(study: Study) -> str:
    """Return the name of the study's data set, without a path."""
    return Path(study.dataset.name).resolve().stem


def stored_sets(checkpoint: Checkpoint) -> dict:
    """Return what arrival.json has, if it is of these weights. Raises InputError."""
    path = checkpoint.folder / FILE
    if not path.is_file():
        return {}
    kinds = {"weights": fields.text, "sets": fields.table, "sets.*.points": fields.array}
    stored = fields.check(path, fields.read_json(path), kinds, "delete it")
    return stored["sets"] if stored["weights"] == checkpoint.sha256 else {}


def snapshots_of(checkpoint: Checkpoint) -> dict[int, Checkpoint]:
    """Return the snapshots by the tokens they have seen, with the checkpoint itself as the last.

    Nothing, where something is missing. Raises InputError for a snapshot of another model.
    """
    state, history = checkpoint.folder / "state", checkpoint.folder / "history.jsonl"
    folders = {int(p.parent.name): p.parent for p in state.glob("[0-9]*/model.safetensors")}
    if not (folders and history.is_file() and (state / "held_out.npy").is_file()):
        return {}
    seen = json.loads(history.read_text(encoding="utf-8").splitlines()[-1])["tokens"]
    return {
        tokens: earlier_weights(checkpoint, folders[tokens], f"{checkpoint.name} at {tokens}")
        for tokens in sorted(folders)
        if tokens < seen
    } | {seen: checkpoint}


def with_all_texts(study: Study) -> Study:
    """Return the study with all texts of its data set, where it has a sample of them."""
    study = dataclasses.replace(study, dataset=load_dataset(study.dataset.name, study.seed))
    return dataclasses.replace(study, tokens={s: study.tokenize(s, False) for s in SPLITS})


def measure_all(study: Study, snapshots: dict[int, Checkpoint]) -> dict:
    """Return what can be read at each snapshot."""
    held_out = np.load(study.checkpoint.folder / "state" / "held_out.npy", mmap_mode="r")
    weights, points = Path(study.checkpoint.name).name, []  # a name without a path
    with bar(len(snapshots), study.quiet, desc="arrival", leave=False) as shown:
        for tokens, checkpoint in snapshots.items():
            trunk = load_trunk(checkpoint.folder).requires_grad_(False).to(study.device)
            then = dataclasses.replace(study, trunk=trunk, checkpoint=checkpoint)
            points.append({"tokens": tokens, "loss": loss_on(then, held_out)} | ratings(then))
            shown.update()
    flags = f"--weights {weights} --data {own_name(study)} --only arrival"
    return {
        "command": f"python -m minigpt explain {flags}",
        "texts": {split: len(texts) for split, texts in study.tokens.items()},
        "chance": study.chance,
        "points": points,
    }


@torch.no_grad()
def loss_on(study: Study, ids: np.ndarray) -> float:
    """Return the mean of -log p(the token that came) over the first windows of ids, in nats."""
    T = study.checkpoint.config.n_positions
    starts = range(0, len(ids) - T - 1, T)[:WINDOWS]
    windows = torch.from_numpy(np.stack([ids[s : s + T + 1] for s in starts]).astype(np.int64))
    total = 0.0
    for rows in windows.to(study.device).split(8):  # (8, T + 1)
        logits = study.trunk.next_token_logits(study.trunk(rows[:, :-1])).flatten(0, 1)
        total += F.cross_entropy(logits, rows[:, 1:].flatten(), reduction="sum").item()
    return total / (len(starts) * T)


def ratings(study: Study) -> dict:
    """Return how well the rating of the test texts can be read: three probes, and the next word."""
    ended = {split: study.tokenize(split, append_end=True) for split in SPLITS}
    vectors = {
        "last": {split: study.pooled(texts) for split, texts in study.tokens.items()},
        "end": {split: study.pooled(texts) for split, texts in ended.items()},
        "first": {split: at_first_token(study, texts) for split, texts in study.tokens.items()},
    }
    logits = {place: x["test"] @ study.probe(x).T for place, x in vectors.items()}
    good, bad = (words.single_tokens(study, some) for some in (words.POSITIVE, words.NEGATIVE))
    if tuple(label.lower() for label in study.labels) in words.RATINGS and good and bad:
        logits["words"] = next_word(study, good, bad)
    return {place: by_kind(study, x) for place, x in logits.items()}


def at_first_token(study: Study, texts: Tokens) -> torch.Tensor:  # -> (N, C)
    """Return the vectors at the first token: equal ones for equal tokens, as it sees no other."""
    tokens, which = np.unique([ids[0] for ids in texts.ids], return_inverse=True)
    alone = Tokens([*tokens[:, None]], torch.zeros(len(tokens), dtype=torch.long))
    return study.pooled(alone)[which]


def next_word(study: Study, good: dict, bad: dict) -> torch.Tensor:  # -> (N, 2)
    """Return logits of the test texts by the next word alone; at the median of dev, they are 0."""
    prompt = study.tokenizer.encode_ordinary(TEMPLATE)
    dev, test = (
        words.after_prompt(study, study.tokens[split], prompt, good, bad)
        for split in ("dev", "test")
    )
    return torch.stack((torch.zeros_like(test), test - dev.median()), 1)


def by_kind(study: Study, logits) -> dict:  # (N, K)
    """Return what `accuracy_of` does, and the same, with intervals, for each kind of text."""
    examples, labels = study.examples("test"), study.labels
    measured = accuracy_of(logits, examples, labels)
    for kind, of_it in measured.get("kinds", {}).items():
        chosen = [i for i, e in enumerate(examples) if e.kind == kind]
        more = accuracy_of(logits[chosen], [examples[i] for i in chosen], labels)
        more.pop("kinds")
        of_it |= more
    return measured
