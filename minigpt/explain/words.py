"""No training at all: which words does the language model itself expect after the text?"""

import dataclasses

import numpy as np
import torch

from minigpt.classifier import read
from minigpt.data import AT_ONCE, Tokens, token_batches
from minigpt.explain.bench import Bench
from minigpt.explain.findings import against_chance, percent, table
from minigpt.explain.probes import judge
from minigpt.explain.states import kept
from minigpt.fast.packed import packed

# N texts, B of them in a batch, W templates, V tokens of the vocabulary

TEMPLATES = (
    "",
    " Overall, this was",
    " All in all, it was",
    " I thought it was",
    " It was",
    " The film was",
    " In short, it is",
    " This is a",
)
POSITIVE = ("great", "good", "excellent", "wonderful", "amazing", "fantastic", "perfect", "superb")
NEGATIVE = ("bad", "terrible", "awful", "horrible", "boring", "poor", "dull", "stupid")
RATINGS = (("negative", "positive"), ("neg", "pos"), ("bad", "good"), ("0", "1"))  # labels


def words(bench: Bench) -> dict:
    """Compare how likely good and bad words are as the next token, after a prompt or none.

    Labels of dev choose the template, and nothing else. A language model has its own idea of how
    often people praise: the second figure takes that out, by the median score of dev's texts, whose
    labels it does not look at.
    """
    question = "Does predicting the next word already rate the text?"
    if tuple(label.lower() for label in bench.labels) not in RATINGS:
        why = f"{', '.join(bench.labels)} are not two ratings, the bad one first"
        return {"question": question, "skipped": why}
    good, bad = (single_tokens(bench, words) for words in (POSITIVE, NEGATIVE))
    if not good or not bad:
        why = f"the vocabulary of {bench.checkpoint.name} has none of the words as one token"
        return {"question": question, "skipped": why}
    scores = {split: preferences(bench, split, good, bad) for split in ("dev", "test")}
    found, dev = {}, {}
    for i, template in enumerate(TEMPLATES):
        usual = scores["dev"][:, i].median()
        title = f"“…{template}”" if template else "“…”"
        ahead = scores["dev"][:, i] > usual
        dev[title] = (ahead == bench.classes["dev"]).double().mean().item()
        raw, figures = (rated(bench, scores["test"][:, i] - cut) for cut in (0.0, usual))
        found[title] = figures | {"raw": raw["accuracy"], "dev": dev[title], "usual": usual.item()}
    best = max(dev, key=dev.get)
    cells = table("after the text", found)
    cells["columns"] += ["as it comes", "on dev"]
    for row, figures in zip(cells["rows"], found.values(), strict=True):
        row += [percent(figures["raw"]), percent(figures["dev"])]
    shown = found[best]
    order = (
        f", and puts {percent(shown['pairs'])} of the pairs in order" if "pairs" in shown else ""
    )
    return {
        "question": question,
        "headline": f"Never trained to rate, it gets {percent(shown['accuracy'], 0)} by guessing "
        "the next word",
        "finding": f"After {best}, chosen on dev, the language model's own preference among "
        f"{len(good)} good and {len(bad)} bad words rates {percent(shown['accuracy'])} of the test "
        f"texts rightly{order}: {against_chance(shown, bench.chance)}. No label has been trained "
        "on; the cut, dev's median, supposes that half of the texts are good.",
        "chance": bench.chance,
        "table": cells,
        "words": {"good": list(good), "bad": list(bad)},
        "chosen": best,
        "best": shown,
        "templates": found,
    }


def single_tokens(bench: Bench, words: tuple) -> dict[str, int]:
    """Return those words that are one token, with a space before them, and its number."""
    encoded = {word: bench.tokenizer.encode_ordinary(f" {word}") for word in words}
    return {word: ids[0] for word, ids in encoded.items() if len(ids) == 1}


def preferences(bench: Bench, split: str, good: dict, bad: dict) -> torch.Tensor:  # -> (N, W)
    """Return the log odds of a good word against a bad one after each text and each template."""
    texts = bench.tokens[split]
    about = bench.about(texts) | {"words": [good, bad], "templates": TEMPLATES}
    shape = len(TEMPLATES), len(texts)
    title = f"next-word preferences of {bench.checkpoint.name} after {len(texts)} texts"
    ways = (preference(bench, texts, template, good, bad) for template in TEMPLATES)
    return torch.tensor(kept(about, title, shape, lambda: ways)).T


@torch.no_grad()
def preference(bench: Bench, texts: Tokens, template: str, good: dict, bad: dict):  # -> (1, N)
    prompt = np.array(bench.tokenizer.encode_ordinary(template), dtype=np.int64)
    room = bench.checkpoint.config.n_positions - len(prompt)
    texts = dataclasses.replace(texts, ids=[np.append(ids[:room], prompt) for ids in texts.ids])
    trunk, scores = packed(bench.trunk, bench.layers), np.empty((1, len(texts)), np.float32)
    for rows in token_batches(texts.lengths, AT_ONCE[bench.device]):
        ids, lengths = (x.to(bench.device) for x in texts.batch(rows)[0])
        logits = bench.trunk.next_token_logits(read(trunk, ids, lengths))  # (B, V)
        odds = [logits[:, [*words.values()]].logsumexp(1) for words in (good, bad)]
        scores[0, rows] = (odds[0] - odds[1]).cpu()
    return scores


def rated(bench: Bench, scores) -> dict:  # (N,)
    logits = torch.stack((torch.zeros_like(scores), scores), 1)
    return judge(logits, bench.examples("test"), bench.labels, bench.seed)
