"""Experiment 1 of `explain`: from which vector of the last layer can the rating be read?"""

import dataclasses

import numpy as np

from minigpt.data import Tokens
from minigpt.datasets import SPLITS
from minigpt.explain import figures
from minigpt.explain.accuracy import accuracy_table, percent, versus_chance
from minigpt.explain.study import Study

QUESTION = "Which vector of the last layer contains the rating?"


def measure(study: Study) -> dict:
    """Return the accuracy of a probe on one vector of the last layer, then on another."""
    top = study.layers - 1
    ended = {split: study.tokenize(split, append_end=True) for split in SPLITS}
    padded = {split: padded_in_order(study, study.tokens[split]) for split in SPLITS}

    def pooled(texts: dict[str, Tokens]) -> dict:
        return {split: study.pooled(texts[split]) for split in SPLITS}

    vectors = {
        "end": ("<|endoftext|> after it", pooled(ended)),
        "mean": ("mean of all", study.at(top, "mean")),
        "max": ("maximum of all", study.at(top, "max")),
        "first": ("first token", study.at(top, 0)),
        "mistake": ("index -1 of a padded batch", pooled(padded)),
    }
    ways = {"last": {"title": "last token"} | study.accuracy(study.last_logits)}
    fitted = study.logits([x for _, x in vectors.values()], "pooling")
    for (key, (title, _)), logits in zip(vectors.items(), fitted, strict=True):
        against = {"against": study.difference(logits, study.last_logits)}
        ways[key] = {"title": title} | study.accuracy(logits) | against
        if key == "first":
            ways[key] |= study.among_equal(logits, lambda ids: ids[0])
    last, first = ways["last"], ways["first"]
    others = "; ".join(f"{ways[k]['title']}, {ways[k]['against']['words']}" for k in vectors)
    return {
        "question": QUESTION,
        "headline": f"At the last token accuracy is {percent(last['accuracy'], 0)}, at the first "
        f"{percent(first['accuracy'], 0)}",
        "finding": f"A linear probe on the last token's vector classifies "
        f"{percent(last['accuracy'])} of the test texts correctly. On the vector of the first "
        f"token, which attends to nothing but itself, accuracy is {percent(first['accuracy'])}, "
        f"{versus_chance(first, study.chance)}. Against the last token: {others}.{by_kind(last)}",
        "chance": study.chance,
        "table": accuracy_table("vector", {w["title"]: w for w in ways.values()}, "last token"),
        "ways": ways,
    }


def by_kind(accuracy: dict) -> str:
    """Return the accuracy by kind of text in words, the highest first; nothing without kinds."""
    kinds = sorted(accuracy.get("kinds", {}).items(), key=lambda item: -item[1]["accuracy"])
    parts = [f"{kind} {percent(one['accuracy'])} of {one['n']}" for kind, one in kinds]
    return f" By kind of text, at the last token: {', '.join(parts)}." if parts else ""


def padded_in_order(study: Study, texts: Tokens, size: int = 32) -> Tokens:
    """Return texts padded with <|endoftext|> to the longest of their batch, as if it were text.

    Their last token is what index -1 of a right-padded batch selects: in most texts, a pad.
    """
    ids = []
    for start in range(0, len(texts), size):
        batch = texts.ids[start : start + size]
        longest = max(map(len, batch))
        pad = study.tokenizer.eot_token
        ids += [np.pad(text, (0, longest - len(text)), constant_values=pad) for text in batch]
    return dataclasses.replace(texts, ids=ids)


def draw(result: dict):
    """Draw the accuracy on each vector."""
    return figures.accuracy_dots(result, list(result["ways"].values()))
