"""Experiment 3 of `explain`: is it pre-training, or the probe, that accounts for the accuracy?"""

import dataclasses
from collections import Counter

import numpy as np
import torch

from minigpt.data import pairs_of
from minigpt.explain import figures
from minigpt.explain.accuracy import accuracy_table, limits, percent, range_of
from minigpt.explain.study import Study, with_bias

# N texts, C channels, V tokens of the vocabulary that are frequent enough to count

QUESTION = "Is it pre-training that puts the rating there, or the probe?"
SHUFFLES = 10  # of labels
SEEDS = range(5)  # of random weights
OFTEN = 2  # texts of train that a token occurs in: from rarer ones, nothing can be learned


def measure(study: Study) -> dict:
    """Fit the same probe on what should contain less of the rating, or none.

    Shuffled labels show that nothing leaks from train into the figures; they are evaluated on true
    ones. A control task in the sense of Hewitt & Liang (2019), random labels that are consistent by
    word, has no counterpart here: the vector of a text is supposed to depend on its words.
    """
    mean = study.pooled_by_split("mean")
    mean_logits = study.logits([mean], "probe on the mean")[0]
    random, random_mean = with_random_weights(study)
    shuffled = with_shuffled_labels(study)
    tokens = {
        "last_word": ("which token is the last", with_tokens_only(study, slice(-1, None))),
        "first_word": ("which token is the first", with_tokens_only(study, slice(1))),
        "length": ("how long the text is", study.lengths_only()),
        "bag": ("which tokens are in the text", with_tokens_only(study, slice(None))),
    }
    # title, logits of test, those of what it is compared with, and what there are several of
    rows = {
        "trained": ("last token, as pre-trained", [study.last_logits], None, ""),
        "random": ("last token, random weights", random, study.last_logits, "seeds"),
        "mean": ("mean of all, as pre-trained", [mean_logits], None, ""),
        "random_mean": ("mean of all, random weights", random_mean, mean_logits, "seeds"),
        "shuffled": ("last token, shuffled labels", shuffled, study.last_logits, "shuffles"),
    }
    for key, (title, vectors) in tokens.items():
        rows[key] = (title, study.logits([vectors], title), study.last_logits, "")
    rows = {key: compared(study, *row) for key, row in rows.items()}
    trained, random, bag = (rows[key] for key in ("trained", "random", "bag"))
    result = {
        "question": QUESTION,
        "headline": f"The last token's vector: {percent(trained['accuracy'], 0)}; with "
        f"random weights, {percent(random['accuracy'], 0)}",
        "finding": f"On the last token's vector the accuracy is {percent(trained['accuracy'])}. "
        f"Without pre-training, with random weights, it is {percent(random['accuracy'])} on "
        f"average ({random['range_of']}: {limits(*random['accuracy_range'])}): "
        f"{random['against']['words']}. With shuffled labels the same probe has "
        f"{percent(rows['shuffled']['accuracy'])} on average. Without any model, on which tokens "
        f"occur in the whole text, {percent(bag['accuracy'])}: {bag['against']['words']}.",
        "chance": study.chance,
        "table": accuracy_table("probe on", {r["title"]: r for r in rows.values()}, "pre-trained"),
        "rows": rows,
    }
    return result | ({"longer": longer_by_class(study)} if study.paired else {})


def compared(study: Study, title: str, several: list, with_what, repeated: str) -> dict:
    """Return the accuracy of logits of test, or the mean and range of several; and how much less or
    more that is than `with_what`, paired text by text.
    """
    accuracies = [study.accuracy(logits) for logits in several]
    row = {"title": title} | (range_of(accuracies, repeated) if repeated else accuracies[0])
    if with_what is not None:
        correct = np.mean([study.correct(logits) for logits in several], 0)  # (N,)
        row["against"] = study.difference(correct, with_what)
    return row


def with_random_weights(study: Study) -> tuple[list, list]:
    """Return the logits of probes on trunks with random weights: last token, and mean of all."""

    def logits(seed: int) -> list:
        random = dataclasses.replace(study.with_random_weights(seed), quiet=True)
        vectors = [random.last, random.pooled_by_split("mean")]
        return [x.numpy() for x in random.logits(vectors, "controls")]

    found = list(study.each(logits, [*SEEDS], "random weights"))
    return tuple([torch.from_numpy(x) for x in way] for way in zip(*found, strict=True))


def with_shuffled_labels(study: Study) -> list[torch.Tensor]:  # (N, K) each
    """Return the logits of probes that were fitted on shuffled labels."""
    generator, parts = torch.Generator().manual_seed(study.seed), []
    for _ in range(SHUFFLES):
        shuffled = []
        for part in study.parts(study.last):
            labels = part.labels[torch.randperm(len(part), generator=generator)]
            shuffled.append(dataclasses.replace(part, labels=labels))
        parts.append(tuple(shuffled))
    probes = study.probes(parts, "shuffled labels")
    return [study.last["test"] @ probe.T for probe in probes]


def with_tokens_only(study: Study, part: slice) -> dict:  # (N, V) by split
    """Return as vectors which tokens occur in a part of each text: no model."""
    texts = Counter(t for ids in study.tokens["train"].ids for t in set(ids[part].tolist()))
    often = np.array(sorted(token for token, n in texts.items() if n >= OFTEN), int)  # (V,)
    occurs = {
        split: torch.from_numpy(np.stack([np.isin(often, ids[part]) for ids in tokens.ids]))
        for split, tokens in study.tokens.items()
    }  # (N, V) each
    return {split: with_bias(x) for split, x in occurs.items()}


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
