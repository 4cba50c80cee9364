"""Experiment 7 of `explain`: does predicting the next word already rate a text, without a probe?"""

import dataclasses

import numpy as np
import torch

from minigpt.classifier import pool
from minigpt.data import Tokens
from minigpt.explain import figures
from minigpt.explain.accuracy import accuracy_of, accuracy_table, percent, versus_chance
from minigpt.explain.study import Study

# N texts, B of them in a batch, M templates, V tokens of the vocabulary

QUESTION = "Does predicting the next word already rate the text?"
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


def measure(study: Study) -> dict:
    """Compare how probable good and bad words are as the next token, after a template or none.

    The labels of dev choose the template, and nothing else. Since a language model has its own
    prior for praise, the threshold is the median score of dev's texts, whatever their labels.
    """
    if tuple(label.lower() for label in study.labels) not in RATINGS:
        why = f"{', '.join(study.labels)} are not two ratings, the bad one first"
        return {"question": QUESTION, "skipped": why}
    good, bad = (single_tokens(study, words) for words in (POSITIVE, NEGATIVE))
    if not good or not bad:
        why = f"in the vocabulary of {study.checkpoint.name}, none of the words is one token"
        return {"question": QUESTION, "skipped": why}
    scores = {split: preferences(study, split, good, bad) for split in ("dev", "test")}
    templates = {}
    for i, template in enumerate(TEMPLATES):
        threshold = scores["dev"][:, i].median()
        on_dev = ((scores["dev"][:, i] > threshold) == study.classes["dev"]).double().mean().item()
        raw, accuracy = (evaluate(study, scores["test"][:, i] - t) for t in (0.0, threshold))
        title = f"“…{template}”" if template else "“…”"
        templates[title] = accuracy | {
            "raw": raw["accuracy"],
            "dev": on_dev,
            "usual": threshold.item(),
        }
    chosen = max(templates, key=lambda title: templates[title]["dev"])
    best = templates[chosen]
    right = scores["test"][:, list(templates).index(chosen)] > best["usual"]
    correct = (right == study.classes["test"]).numpy()
    best["against"] = study.difference(correct, study.last_logits)
    table = accuracy_table("after the text", templates, "the probe")
    table["columns"] += ["threshold 0", "on dev"]
    for row, accuracy in zip(table["rows"], templates.values(), strict=True):
        row += [percent(accuracy["raw"]), percent(accuracy["dev"])]
    return {
        "question": QUESTION,
        "headline": f"Without any training on labels, next-word prediction has "
        f"{percent(best['accuracy'], 0)}",
        "finding": finding(study, chosen, best, good, bad),
        "chance": study.chance,
        "table": table,
        "words": {"good": list(good), "bad": list(bad)},
        "chosen": chosen,
        "best": best,
        "templates": templates,
    }


def finding(study: Study, chosen: str, best: dict, good: dict, bad: dict) -> str:
    """Return how well the chosen prompt does, in words."""
    ordered = f", with {percent(best['pairs'])} of the pairs in order" if "pairs" in best else ""
    return (
        f"After {chosen}, chosen on dev, comparing how probable {len(good)} good and {len(bad)} "
        f"bad words are as the next token classifies {percent(best['accuracy'])} of the test texts "
        f"correctly{ordered}: {versus_chance(best, study.chance)}. Against the probe on the last "
        f"token: {best['against']['words']}. Nothing was trained on labels; "
        "the threshold, the median on dev, assumes that half of the texts are good."
    )


def single_tokens(study: Study, words: tuple) -> dict[str, int]:
    """Return the words that are one token when a space precedes them, and the id of it."""
    encoded = {word: study.tokenizer.encode_ordinary(f" {word}") for word in words}
    return {word: ids[0] for word, ids in encoded.items() if len(ids) == 1}


def preferences(study: Study, split: str, good: dict, bad: dict) -> torch.Tensor:  # -> (N, M)
    """Return the log odds of a good word against a bad one after each text and each template."""
    prompts = [study.tokenizer.encode_ordinary(template) for template in TEMPLATES]
    columns = [after_prompt(study, study.tokens[split], prompt, good, bad) for prompt in prompts]
    return torch.stack(columns, 1)


def after_prompt(study: Study, texts: Tokens, prompt: list, good: dict, bad: dict) -> torch.Tensor:
    """Return the log odds of a good word against a bad one behind texts and a prompt: (N,)."""
    room = study.checkpoint.config.n_positions - len(prompt)
    ids = [np.append(ids[:room], prompt).astype(np.int64) for ids in texts.ids]
    prompted = dataclasses.replace(texts, ids=ids)

    @torch.no_grad()
    def read(trunk, batch):  # -> (B,)
        ids, lengths = (x.to(study.device) for x in prompted.batch(batch)[0])
        logits = study.trunk.next_token_logits(pool(trunk(ids), lengths))  # (B, V)
        odds = [logits[:, [*words.values()]].logsumexp(1) for words in (good, bad)]
        return (odds[0] - odds[1]).cpu().numpy()

    settings = {"words": [good, bad]}
    batches = study.batches(prompted)
    array, order = study.computed_once(prompted, "word preferences", settings, (), batches, read)
    return torch.from_numpy(array[order])


def evaluate(study: Study, scores) -> dict:  # (N,)
    logits = torch.stack((torch.zeros_like(scores), scores), 1)
    return accuracy_of(logits, study.examples("test"), study.labels)


def draw(result: dict):
    """Draw the accuracy of next-word prediction after each template."""
    templates = result["templates"]
    names = [f"{name} (chosen)" if name == result["chosen"] else name for name in templates]
    rows = [{"title": name, **row} for name, row in zip(names, templates.values(), strict=True)]
    return figures.accuracy_dots(result, rows)
