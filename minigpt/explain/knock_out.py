"""Experiment 4 of `explain`: in which blocks does the last token's attention collect the rating?

The last token is read again with some of its attention knocked out, in one of two ways; the tokens
before it are unchanged. *Cut*: it attends to itself only, or to the last few tokens, which never
occurred in pre-training. *Mean*: the output of each head of a block at the last token is replaced
by its mean over the last tokens of the texts of train, read without a knock-out. So the block
adds the same to all texts, but something usual (mean ablation; Wang et al. 2022, "Interpretability
in the Wild").
"""

import torch

from minigpt.data import Tokens
from minigpt.datasets import SPLITS
from minigpt.explain import figures
from minigpt.explain.accuracy import accuracy_table, percent, versus_chance
from minigpt.explain.interventions import (
    attention_replaced,
    heads_of,
    read_last_token,
    reread,
)
from minigpt.explain.study import Study
from minigpt.model import fused_attention

# N texts, B of them in a batch, T tokens, S that can be attended to, C channels, H heads, D = C / H

QUESTION = "In which blocks does the last token's attention collect the rating?"
WINDOWS = (1, 2, 4, 8, 16)


def last_tokens_only(window: int):
    """Return an attention function for a text's last token: it attends to the last tokens only."""

    def attention(q, k, v, dropout=0.0):  # (B, H, 1, D), (B, H, S, D) x 2 -> (B, H, 1, D)
        return fused_attention(q, k[..., -window:, :], v[..., -window:, :], dropout)

    return attention


def always(output):  # (H, D)
    """Return an attention function for a text's last token whose result is always the same."""

    def attention(q, k, v, dropout=0.0):  # (B, H, 1, D), (B, H, S, D) x 2 -> (B, H, 1, D)
        return output[:, None].expand_as(q)

    return attention


def knock_outs(blocks: int) -> dict[tuple[str, int], tuple]:
    """Return in which blocks, by index, attention is knocked out, and how: to which window it is
    cut, or 0 for the mean. Keys count blocks from 1.

    A token always attends to itself: with a window of 1, to nothing else.
    """
    ways = {("nothing", 0): ((), 1)}
    for window, how in ((1, ""), (0, "mean_")):
        ways |= {(f"{how}from", b): (range(b - 1, blocks), window) for b in range(1, blocks + 1)}
        ways |= {(f"{how}up_to", b): (range(b), window) for b in range(1, blocks + 1)}
        ways |= {(f"{how}only", b): ((b - 1,), window) for b in range(1, blocks + 1)}
    return ways | {("window", w): (range(blocks), w) for w in WINDOWS}


def knocked_out(study: Study, texts: Tokens, means) -> torch.Tensor:  # (L, H, D) -> (N, ways, C)
    """Return the last token's vectors under all knock-outs."""
    ways = knock_outs(len(study.trunk.h))

    def read(trunk, unchanged, batch):
        vectors = []
        for blocks, window in ways.values():
            functions = {
                i: last_tokens_only(window) if window else always(means[i]) for i in blocks
            }
            with attention_replaced(trunk, functions):
                vectors.append(read_last_token(trunk, unchanged))
        return torch.stack(vectors, 1)

    settings = {
        "ways": [str(way) for way in ways],
        "means": study.depends_on(study.tokens["train"]),
    }
    shape = len(ways), study.trunk.config.n_embd
    return reread(study, texts, "knock-out", settings, shape, read)


def title_of(kind: str, at: int) -> str:
    """Return what is knocked out, in words."""
    kind, how = kind.removeprefix("mean_"), "mean" if kind.startswith("mean_") else "cut"
    return {
        "nothing": "nothing is cut",
        "from": f"{how} in block {at} and above" if at > 1 else f"{how} in all blocks",
        "up_to": f"{how} in blocks up to {at}",
        "only": f"{how} in block {at} only",
        "window": f"attends to the last {at} tokens only" if at > 1 else "attends to itself only",
    }[kind]


def measure(study: Study) -> dict:
    """Knock out the last token's attention to the others, in some blocks or beyond a few tokens.

    A new probe is fitted each time: the question is what can still be read, not what confuses a
    probe that was fitted on something else.
    """
    means = heads_of(study, study.tokens["train"]).mean(0).to(study.device)
    vectors = {split: knocked_out(study, study.tokens[split], means) for split in SPLITS}
    ways = list(knock_outs(len(study.trunk.h)))
    vectors = [{split: x[:, i] for split, x in vectors.items()} for i in range(len(ways))]
    fitted = [study.last_logits, *study.logits(vectors[1:], "knock-out, probes")]
    rows = {}
    for (kind, at), logits in zip(ways, fitted, strict=True):
        row = {"title": title_of(kind, at), "kind": kind, "at": at} | study.accuracy(logits)
        if kind != "nothing":
            row["against"] = study.difference(logits, study.last_logits)
        if kind == "window":  # pairs for which all that the last token attends to is the same
            row |= study.among_equal(logits, lambda ids, w=at: tuple(ids[-w:]))
        if (kind, at) == ("from", 1):  # what is left to it: its token, and its position
            row |= study.among_equal(logits, lambda ids: (len(ids), ids[-1]))
        rows[f"{kind}_{at}"] = row
    length = study.probe_accuracy(study.lengths_only())
    titles = {row["title"]: row for row in rows.values()}
    whole, none = rows["nothing_0"], rows["from_1"]
    return {
        "question": QUESTION,
        "headline": f"Without attention the last token has {percent(none['accuracy'], 0)}, with "
        f"all of it {percent(whole['accuracy'], 0)}",
        "finding": finding(rows, length, study),
        "chance": study.chance,
        "table": accuracy_table("last token's attention", titles, "nothing cut"),
        "rows": rows,
        "length": length,
    }


def finding(rows: dict, length: dict, study: Study) -> str:
    """Return what the knock-outs show, in words."""
    blocks = len(study.trunk.h)
    half, words = max(1, blocks // 2), []
    for how, verb in (("", "Cut"), ("mean_", "Replaced by its mean over texts")):
        early, late = rows[f"{how}up_to_{half}"], rows[f"{how}from_{min(half + 1, blocks)}"]
        worst = min(
            (rows[f"{how}only_{b}"] for b in range(1, blocks + 1)), key=lambda row: row["accuracy"]
        )
        words.append(
            f"{verb} in the lower half of the blocks: {percent(early['accuracy'])}; in the upper "
            f"half: {percent(late['accuracy'])}; in the one block where that costs most, block "
            f"{worst['at']}: {worst['against']['words']}."
        )
    whole, none = rows["nothing_0"], rows["from_1"]
    return (
        f"With all attention of the last token cut, accuracy is {percent(none['accuracy'])}, "
        f"{versus_chance(none, study.chance)} (its position tells the length of the text, which "
        f"alone gives {percent(length['accuracy'])}); with nothing cut, "
        f"{percent(whole['accuracy'])}. {' '.join(words)}"
    )


def draw(result: dict):
    """Draw the accuracy with attention knocked out in both ways, by block, and by distance."""
    figure, (left, middle, right) = figures.canvas(4.1, columns=3, sharey=True)
    kinds = {}
    for row in result["rows"].values():
        kinds.setdefault(row["kind"], []).append(row)
    for axes, how, verb in ((left, "", "cut"), (middle, "mean_", "replaced by its mean")):
        for kind, colour, mark, label in (
            ("only", figures.GREEN, "s", "in this block only"),
            ("from", figures.BLUE, "o", "in it and all above"),
            ("up_to", figures.ORANGE, "D", "in it and all below"),
        ):
            rows = kinds[how + kind]
            figures.line(axes, [row["at"] for row in rows], rows, colour, mark, label)
        axes.set(xlabel="block", xticks=[row["at"] for row in kinds["only"]])
        axes.set_title(verb, loc="left", fontsize=9.5)
        axes.legend(loc="center", bbox_to_anchor=(0.5, 0.42), fontsize=8.5)
    windows = kinds["window"]
    points = [*windows, {**result["rows"]["nothing_0"], "at": 2 * windows[-1]["at"]}]
    figures.line(right, [row["at"] for row in points], points, figures.RED, "o", "")
    right.set_xscale("log", base=2)
    right.set_xticks([r["at"] for r in points], [*(r["at"] for r in windows), "all"])
    right.minorticks_off()
    right.set_xlabel("last tokens it attends to")
    right.set_title("cut", loc="left", fontsize=9.5)
    for axes in (left, middle, right):
        figures.chance_line(axes, result["chance"])
    figures.percent_axis(left.yaxis)
    left.set_ylabel("test accuracy")
    figures.title(figure, result)
    return figure
