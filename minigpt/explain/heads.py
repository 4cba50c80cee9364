"""Experiment 6 of `explain`: which heads bring the rating to the last token, and from where?

As in patching.py, but what is replaced is the output of one head at the last token, before the
block's output matrix, in the block that moves the score most.
"""

from difflib import SequenceMatcher

import numpy as np
import torch

from minigpt.explain import figures
from minigpt.explain.accuracy import percent
from minigpt.explain.interventions import (
    attention_replaced,
    heads_at_last_token,
    heads_of,
    read_last_token,
    reread,
)
from minigpt.explain.patching import exchange, patched_vectors, settled_in
from minigpt.explain.study import Study, part_of
from minigpt.model import fused_attention

# N texts, B of them in a batch, T tokens, C channels, H heads, D = C // H

QUESTION = "Which heads bring the rating to the last token, and from where?"
FEW = 2  # heads that the finding names
TARGETS = {"differing": "tokens that differ", "first": "first token", "itself": "itself"}


def heads_replaced(heads, theirs):  # theirs (B, H, D)
    """Return an attention function for a text's last token: some heads' outputs are `theirs`."""

    def attention(q, k, v, dropout=0.0):  # (B, H, 1, D), (B, H, T, D) x 2 -> (B, H, 1, D)
        output = fused_attention(q, k, v, dropout).clone()
        output[:, heads, 0] = theirs[:, heads]
        return output

    return attention


def targets_of(ids: np.ndarray, other: np.ndarray) -> np.ndarray:  # (T,), (S,) -> (3, T)
    """Return which tokens of a text count as TARGETS: no token as two of them.

    A token differs if it is in no part that the two texts have in common, by longest first.
    """
    targets = np.zeros((len(TARGETS), len(ids)), bool)
    matcher = SequenceMatcher(None, ids.tolist(), other.tolist(), autojunk=False)
    targets[0] = True
    for start, _, size in matcher.get_matching_blocks():
        targets[0, start : start + size] = False
    targets[0, [0, -1]] = False
    targets[1, 0], targets[2, -1] = len(ids) > 1, True
    return targets


def exchanged(study: Study, texts: np.ndarray, others: np.ndarray, block: int):
    """Return the last token's vectors with heads of a block, by index, replaced by the others'.

    With each head replaced, then all of them, (N, H + 1, C). Also returns how the attention of
    each head of each block there is shared among TARGETS, (N, L, H, 3).
    """
    tokens, config = study.tokens["test"], study.trunk.config
    theirs = heads_of(study, tokens)[others, block].to(study.device)  # (N, H, D)
    each = [[head] for head in range(config.n_head)]

    def read(trunk, unchanged, batch):  # -> (B, (H + 1) C + L H 3)
        parts = []
        for heads in (*each, [*range(len(each))]):
            with attention_replaced(trunk, {block: heads_replaced(heads, theirs[batch])}):
                parts.append(read_last_token(trunk, unchanged))
        weights = heads_at_last_token(trunk, unchanged)[1]  # (B, L, H, T)
        pairs = zip(texts[batch], others[batch], strict=True)
        targets = np.stack(
            [targets_of(tokens.ids[i], tokens.ids[j]) for i, j in pairs]
        )  # (B, 3, T)
        parts.append((weights @ torch.from_numpy(targets).to(weights).mT[:, None]).flatten(1))
        return torch.cat(parts, 1)

    settings = {"block": block, "with": study.depends_on(part_of(tokens, others))}
    vectors = (len(each) + 1) * config.n_embd
    shape = (vectors + config.n_layer * len(each) * len(TARGETS),)
    array = reread(study, part_of(tokens, texts), "heads exchanged", settings, shape, read)
    shares = array[:, vectors:].unflatten(1, (-1, len(each), len(TARGETS)))
    return array[:, :vectors].unflatten(1, (len(each) + 1, -1)), shares


def measure(study: Study) -> dict:
    """Exchange the output of each head between the texts of a pair, and see where it attends."""
    twins = exchange(study)
    if isinstance(twins, str):
        return {"question": QUESTION, "skipped": twins}
    texts, others, moved_by = twins
    block = settled_in(moved_by(patched_vectors(study, texts, others)).tolist())
    vectors, shares = exchanged(study, texts, others, block - 1)
    *moved, together = moved_by(vectors).tolist()
    shares = shares.mean(0)  # (L, H, 3)
    heads = [
        {"head": h, "moved": share, **dict(zip(TARGETS, targets, strict=True))}
        for h, (share, targets) in enumerate(zip(moved, shares[block - 1].tolist(), strict=True), 1)
    ]
    most = sorted(heads, key=lambda head: -head["moved"])[:FEW]
    first = shares[..., list(TARGETS).index("first")].mean(1).tolist()  # by block
    ids = study.tokens["test"].ids
    pairs = zip(texts, others, strict=True)
    even = float(np.mean([targets_of(ids[i], ids[j])[0].mean() for i, j in pairs]))
    return {
        "question": QUESTION,
        "headline": f"Of block {block}, all heads together move {percent(together, 0)} of the "
        f"score; head {most[0]['head']} alone moves {percent(most[0]['moved'], 0)}",
        "finding": finding(block, most, together, even, first),
        "chance": 0.0,
        "table": {
            "columns": ["head", "moves the score", *(f"attends to: {g}" for g in TARGETS.values())],
            "rows": [
                [str(head["head"]), *(percent(head[key]) for key in ("moved", *TARGETS))]
                for head in heads
            ]
            + [["all", percent(together), *["–"] * len(TARGETS)]],
        },
        "block": block,
        "heads": heads,
        "most": most[0],
        "together": together,
        "even": even,
        "first": first,
        "most_first": max(first),
    }


def finding(block: int, most: list, together: float, even: float, first: list) -> str:
    """Return in words what the heads of a block do; `first` is the first token's share by block."""
    few = " and ".join(
        f"head {head['head']} by {percent(head['moved'])} (of its attention there, "
        f"{percent(head['differing'])} goes to tokens that differ between the two texts, which "
        f"are {percent(even)} of the tokens)"
        for head in most
    )
    return (
        f"The last token's share of the score rises most in block {block}. Its heads, all "
        f"exchanged at the last token, move the score by {percent(together)} of the distance to "
        f"the other text's: {few}. The first token gets at most {percent(max(first))} of the last "
        "token's attention, on average over the heads of a block (block "
        f"{1 + int(np.argmax(first))}). It has seen nothing but itself, and carries no rating of "
        "what follows: where heads that have nothing to fetch rest there, it may be an attention "
        "sink (Xiao et al. 2023)."
    )


def draw(result: dict):
    """Draw for each head how far it moves the score, and where its attention goes."""
    heads = result["heads"]
    figure, (left, right) = figures.canvas(1.6 + 0.4 * len(heads), columns=2, sharey=True)
    y = [head["head"] for head in heads]
    left.barh(y, [head["moved"] for head in heads], color=figures.BLUE)
    left.set_xlabel("share of the way to the other text's score")
    start = np.zeros(len(heads))
    colours = (figures.ORANGE, figures.RED, figures.GREEN)
    for (key, label), colour in zip(TARGETS.items(), colours, strict=True):
        shares = np.array([head[key] for head in heads])
        right.barh(y, shares, left=start, color=colour, label=label)
        start += shares
    right.set_xlabel("attention at the last token")
    right.set(xlim=(0, 1), xticks=(0, 0.25, 0.5, 0.75, 1))
    right.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize=9, handlelength=1)
    left.set(ylabel=f"head of block {result['block']}", yticks=y, ylim=(len(y) + 0.6, 0.4))
    figures.percent_axis(left.xaxis)
    right.xaxis.set_major_formatter(left.xaxis.get_major_formatter())
    for axes in (left, right):
        axes.grid(axis="y", visible=False)
    figures.title(figure, result)
    return figure
