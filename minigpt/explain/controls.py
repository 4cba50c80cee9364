"""Experiment 3 of `explain`: is it pre-training, or the probe, that accounts for the accuracy?"""

import dataclasses
from collections import Counter

import numpy as np
import torch

from minigpt.data import pairs_of
from minigpt.explain import figures
from minigpt.explain.accuracy import accuracy_table, percent, versus_chance
from minigpt.explain.study import Study, with_bias

# N texts, C channels, V tokens of the vocabulary that are frequent enough to count

QUESTION = "Is it pre-training that puts the rating there, or the probe?"
SHUFFLES = 10
OFTEN = 2  # texts of train that a token occurs in: from rarer ones, nothing can be learned


def measure(study: Study) -> dict:
    """Fit the same probe on what should contain less of the rating, or none.

    Shuffled labels show that nothing leaks from train into the figures; they are evaluated on true
    ones. A control task in the sense of Hewitt & Liang (2019), random labels that are consistent by
    word, has no counterpart here: the vector of a text is supposed to depend on its words.
    """
    random, last = study.with_random_weights(), pooled(study, "last")
    random_mean = pooled(random, "mean")
    rows = {
        "trained": ("last token, as pre-trained", study.probe_accuracy(last)),
        "random": ("last token, random weights", study.probe_accuracy(pooled(random, "last"))),
        "random_mean": (
            "mean of all, random weights",
            study.probe_accuracy(random_mean),
        ),
        "shuffled": ("last token, shuffled labels", with_shuffled_labels(study, last)),
        "last_word": ("which token is the last", with_tokens_only(study, slice(-1, None))),
        "first_word": ("which token is the first", with_tokens_only(study, slice(1))),
        "length": ("how long the text is", study.probe_accuracy(study.lengths_only())),
        "bag": ("which tokens are in the text", with_tokens_only(study, slice(None))),
    }
    rows = {key: {"title": title} | accuracy for key, (title, accuracy) in rows.items()}
    trained, random, shuffled, bag = (
        percent(rows[key]["accuracy"]) for key in ("trained", "random", "shuffled", "bag")
    )
    result = {
        "question": QUESTION,
        "headline": f"The last token's vector: {percent(rows['trained']['accuracy'], 0)}; with "
        f"random weights, {percent(rows['random']['accuracy'], 0)}",
        "finding": f"On the last token's vector the accuracy is {trained}. Without pre-training, "
        f"with random weights, it is {random}, {versus_chance(rows['random'], study.chance)}. With "
        f"shuffled labels the same probe has {shuffled}. Without any model, on which tokens occur "
        f"in the whole text, {bag}.",
        "chance": study.chance,
        "table": accuracy_table("probe on", {row["title"]: row for row in rows.values()}),
        "rows": rows,
    }
    return result | ({"longer": longer_by_class(study)} if study.paired else {})


def pooled(study: Study, pooling: str) -> dict[str, torch.Tensor]:  # (N, C) by split
    return {split: study.pooled(texts, pooling) for split, texts in study.tokens.items()}


def with_shuffled_labels(study: Study, vectors: dict) -> dict:
    """Return the mean accuracy of probes fitted on shuffled labels, and the lowest and highest."""
    generator = torch.Generator().manual_seed(study.seed)
    accuracies = []
    for _ in range(SHUFFLES):
        tokens = dict(study.tokens)
        for split in ("train", "dev"):
            labels = tokens[split].labels
            labels = labels[torch.randperm(len(labels), generator=generator)]
            tokens[split] = dataclasses.replace(tokens[split], labels=labels)
        accuracies.append(dataclasses.replace(study, tokens=tokens).probe_accuracy(vectors))
    summary = {"times": SHUFFLES}
    for value, interval in (("accuracy", "interval"), ("pairs", "pairs_interval")):
        if value in accuracies[0]:
            values = [accuracy[value] for accuracy in accuracies]
            summary |= {value: float(np.mean(values)), interval: (min(values), max(values))}
    return summary


def with_tokens_only(study: Study, part: slice) -> dict:
    """Return the accuracy of a probe on which tokens occur in a part of each text: no model."""
    texts = Counter(t for ids in study.tokens["train"].ids for t in set(ids[part].tolist()))
    often = np.array(sorted(token for token, n in texts.items() if n >= OFTEN), int)  # (V,)
    occurs = {
        split: torch.from_numpy(np.stack([np.isin(often, ids[part]) for ids in tokens.ids]))
        for split, tokens in study.tokens.items()
    }  # (N, V) each
    return study.probe_accuracy({split: with_bias(x) for split, x in occurs.items()})


def longer_by_class(study: Study) -> dict[str, list[float]]:
    """Return in which share of test's pairs the text of each class is the longer, by unit."""
    examples = study.examples("test")
    pairs = [
        sorted(pair, key=lambda i: study.labels.index(examples[i].label))
        for pair in pairs_of(examples)
    ]
    lengths = {
        "tokens": study.tokens["test"].lengths,
        "characters": np.array([len(example.text) for example in examples]),
    }
    shares = {}
    for unit, n in lengths.items():
        first, second = n[np.array(pairs)].T
        shares[unit] = [float((first > second).mean()), float((first < second).mean())]
    return shares


def draw(result: dict):
    """Draw the accuracy of the same probe in each control."""
    return figures.accuracy_dots(result, list(result["rows"].values()))
