"""Experiment 4 of `explain`: in which blocks does the last token's attention collect the rating?

The last token is read again with some of its attention cut; the tokens before it are unchanged.
"""

import contextlib

import numpy as np
import torch

from minigpt.data import TOKENS_AT_ONCE, Tokens
from minigpt.datasets import SPLITS
from minigpt.explain import figures
from minigpt.explain.accuracy import accuracy_table, percent, versus_chance
from minigpt.explain.interventions import Unchanged, batches_of_equal_length, read_unchanged
from minigpt.explain.study import Study
from minigpt.model import GPT2, fused_attention

# N texts, B of them in a batch, T tokens, S that can be attended to, C channels, H heads, D = C / H

QUESTION = "In which blocks does the last token's attention collect the rating?"
WINDOWS = (1, 2, 4, 8, 16)


def last_tokens_only(window: int):
    """Return an attention function for a text's last token: it attends to the last tokens only."""

    def attention(q, k, v, dropout=0.0):  # (B, H, 1, D), (B, H, S, D) x 2 -> (B, H, 1, D)
        return fused_attention(q, k[..., -window:, :], v[..., -window:, :], dropout)

    return attention


@contextlib.contextmanager
def attention_replaced(trunk: GPT2, blocks, attention):
    """Put another attention function into some blocks, for as long as this lasts."""
    before = {i: trunk.h[i].attn.attention for i in blocks}
    try:
        for i in blocks:
            trunk.h[i].attn.attention = attention
        yield
    finally:
        for i, own in before.items():
            trunk.h[i].attn.attention = own


@torch.no_grad()
def read_last_token(trunk: GPT2, texts: Unchanged):  # -> (B, C)
    """Read the last token of texts again, with the attention that the blocks now have."""
    return trunk(texts.ids[:, -1:], texts.before(texts.ids.size(1) - 1))[:, -1]


def cuts(blocks: int) -> dict[tuple[str, int], tuple]:
    """Return in which blocks the last token's attention is cut, and to what window.

    A token always attends to itself: with a window of 1, to nothing else.
    """
    ways = {("nothing", 0): ((), 1)}
    ways |= {("from", b): (range(b, blocks), 1) for b in range(blocks)}
    ways |= {("up_to", b): (range(b + 1), 1) for b in range(blocks)}
    ways |= {("only", b): ((b,), 1) for b in range(blocks)}
    return ways | {("window", w): (range(blocks), w) for w in WINDOWS}


def cut_vectors(study: Study, texts: Tokens) -> np.ndarray:  # -> (N, cuts, C)
    """Return the last token's vectors under all cuts."""
    ways = cuts(len(study.trunk.h))

    def read(trunk, batch):
        unchanged = read_unchanged(trunk, texts.batch(batch)[0][0].to(study.device))
        vectors = []
        for blocks, window in ways.values():
            with attention_replaced(trunk, blocks, last_tokens_only(window)):
                vectors.append(read_last_token(trunk, unchanged).cpu())
        return torch.stack(vectors, 1).numpy()

    batches = batches_of_equal_length(texts.lengths, 4 * TOKENS_AT_ONCE[study.device])
    settings = {"cuts": [str(way) for way in ways]}
    shape = len(ways), study.trunk.config.n_embd
    array, order = study.computed_once(texts, "knock-out", settings, shape, batches, read)
    return array[order]


def title_of(kind: str, at: int) -> str:
    """Return what is cut, in words."""
    return {
        "nothing": "nothing is cut",
        "from": f"cut in block {at} and above" if at else "cut in all blocks",
        "up_to": f"cut in blocks up to {at}",
        "only": f"cut in block {at} only",
        "window": f"attends to the last {at} tokens only" if at > 1 else "attends to itself only",
    }[kind]


def measure(study: Study) -> dict:
    """Cut the last token's attention to the others, in some blocks or beyond a few tokens.

    A new probe is fitted each time: the question is what can still be read, not what confuses a
    probe that was fitted on something else.
    """
    vectors = {split: cut_vectors(study, study.tokens[split]) for split in SPLITS}
    rows = {}
    for i, (kind, at) in enumerate(cuts(len(study.trunk.h))):
        x = {split: torch.from_numpy(array[:, i]) for split, array in vectors.items()}
        row = {"title": title_of(kind, at), "kind": kind, "at": at} | study.probe_accuracy(x)
        if kind == "window":  # pairs for which all that the last token attends to is the same
            row |= among_equal(study, x, lambda ids, w=at: tuple(ids[-w:]))
        if (kind, at) == ("from", 0):  # what is left to it: its token, and its position
            row |= among_equal(study, x, lambda ids: (len(ids), ids[-1]))
        rows[f"{kind}_{at}"] = row
    length = study.probe_accuracy(study.lengths_only())
    whole, none = rows["nothing_0"], rows["from_0"]
    return {
        "question": QUESTION,
        "headline": f"Without attention the last token has {percent(none['accuracy'], 0)}, with "
        f"all of it {percent(whole['accuracy'], 0)}",
        "finding": finding(rows, length, study),
        "chance": study.chance,
        "table": accuracy_table("last token's attention", {r["title"]: r for r in rows.values()}),
        "rows": rows,
        "length": length,
    }


def among_equal(study: Study, vectors: dict, key) -> dict:
    """Return the accuracy on the pairs of test whose two texts have the same `key`."""
    among = study.equal_pairs(key)
    if not among:
        return {"alike": 0}
    return {
        "alike": len(among),
        "alike_accuracy": study.probe_accuracy(vectors, among)["accuracy"],
    }


def finding(rows: dict, length: dict, study: Study) -> str:
    """Return what the cuts show, in words."""
    blocks = len(study.trunk.h)
    half = max(1, blocks // 2)
    whole, none = rows["nothing_0"], rows["from_0"]
    late, early = rows[f"from_{min(half, blocks - 1)}"], rows[f"up_to_{half - 1}"]
    lowest = min(rows[f"only_{b}"]["accuracy"] for b in range(blocks))
    return (
        f"With all attention of the last token cut, accuracy is {percent(none['accuracy'])}, "
        f"{versus_chance(none, study.chance)} (its position tells the length of the text, which "
        f"alone gives {percent(length['accuracy'])}); with nothing cut, "
        f"{percent(whole['accuracy'])}. Cut in the lower half of the blocks: "
        f"{percent(early['accuracy'])}; in the upper half: {percent(late['accuracy'])}. Cutting a "
        f"single block costs at most {100 * (whole['accuracy'] - lowest):.1f} points."
    )


def draw(result: dict):
    """Draw the accuracy with attention cut, by block and by distance."""
    figure, (left, right) = figures.canvas(
        4.1, columns=2, sharey=True, gridspec_kw={"width_ratios": [3, 2]}
    )
    kinds = {}
    for row in result["rows"].values():
        kinds.setdefault(row["kind"], []).append(row)
    for kind, colour, mark, label in (
        ("only", figures.GREEN, "s", "cut in this block only"),
        ("from", figures.BLUE, "o", "cut in this block and all above"),
        ("up_to", figures.ORANGE, "D", "cut in this block and all below"),
    ):
        figures.line(left, [row["at"] for row in kinds[kind]], kinds[kind], colour, mark, label)
    left.set(xlabel="block", xticks=[row["at"] for row in kinds["only"]])
    left.legend(loc="lower center", bbox_to_anchor=(0.45, 0.08), fontsize=9.5)
    windows = kinds["window"]
    points = [*windows, {**result["rows"]["nothing_0"], "at": 2 * windows[-1]["at"]}]
    figures.line(right, [row["at"] for row in points], points, figures.RED, "o", "")
    right.set_xscale("log", base=2)
    right.set_xticks([r["at"] for r in points], [*(r["at"] for r in windows), "all"])
    right.minorticks_off()
    right.set_xlabel("number of last tokens it attends to")
    for axes in (left, right):
        figures.reference_line(axes, result["chance"], "chance")
    figures.percent_axis(left.yaxis)
    left.set_ylabel("test accuracy")
    figures.title(figure, result)
    return figure
