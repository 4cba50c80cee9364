"""Experiment 6 of `explain`: which heads bring the rating to the last token, and from where?

As in patching.py, but what is replaced is the output of one head at the last token, before the
block's output matrix, in the block that moves the score most.
"""

from difflib import SequenceMatcher

import numpy as np
import torch

from minigpt.data import TOKENS_AT_ONCE, Tokens
from minigpt.explain import figures
from minigpt.explain.accuracy import percent
from minigpt.explain.interventions import (
    attention_replaced,
    batches_of_equal_length,
    heads_at_last_token,
    read_last_token,
    read_unchanged,
)
from minigpt.explain.patching import exchange, patched_vectors, settled_in
from minigpt.explain.study import Study
from minigpt.model import fused_attention

# N texts, B of them in a batch, T tokens, C channels, H heads, D = C // H

QUESTION = "Which heads bring the rating to the last token, and from where?"
FEW = 2  # heads that the finding names
GOALS = {"differing": "tokens that differ", "first": "first token", "itself": "itself"}


def heads_replaced(heads, theirs):  # theirs (B, H, D)
    """Return an attention function for a text's last token: some heads' outputs are `theirs`."""

    def attention(q, k, v, dropout=0.0):  # (B, H, 1, D), (B, H, T, D) x 2 -> (B, H, 1, D)
        output = fused_attention(q, k, v, dropout).clone()
        output[:, heads, 0] = theirs[:, heads]
        return output

    return attention


def goals_of(ids: np.ndarray, other: np.ndarray) -> np.ndarray:  # (T,), (S,) -> (3, T)
    """Return which tokens of a text count as GOALS: no token as two of them.

    A token differs if it is in no part that the two texts have in common, by longest first.
    """
    goals = np.zeros((len(GOALS), len(ids)), bool)
    matcher = SequenceMatcher(None, ids.tolist(), other.tolist(), autojunk=False)
    goals[0] = True
    for start, _, size in matcher.get_matching_blocks():
        goals[0, start : start + size] = False
    goals[0, [0, -1]] = False
    goals[1, 0], goals[2, -1] = len(ids) > 1, True
    return goals


def exchanged(study: Study, texts: np.ndarray, others: np.ndarray, block: int):
    """Return what replacing heads of a block, by index, by those of the other texts leads to.

    Returns the last token's vectors with each head replaced, then all of them, (N, H + 1, C); and
    how the attention of all heads of all blocks at the last token is shared among GOALS, for each
    text: (N, L, H, 3).
    """
    tokens, heads, width = (
        study.tokens["test"],
        study.trunk.config.n_head,
        study.trunk.config.n_embd,
    )
    chosen = Tokens([tokens.ids[i] for i in texts], tokens.labels[torch.from_numpy(texts)])
    donors = Tokens([tokens.ids[i] for i in others], chosen.labels)
    settings = {"block": block, "with": study.depends_on(donors)}

    def read_heads(trunk, batch):  # -> (B, H D + L H 3)
        unchanged = read_unchanged(trunk, chosen.batch(batch)[0][0].to(study.device))
        outputs, weights = (x.cpu() for x in heads_at_last_token(trunk, unchanged))
        goals = np.stack([goals_of(chosen.ids[i], donors.ids[i]) for i in batch])  # (B, 3, T)
        shares = weights @ torch.from_numpy(goals).float().mT[:, None]  # (B, L, H, 3)
        return torch.cat((outputs[:, block].flatten(1), shares.flatten(1)), 1).numpy()

    batches = batches_of_equal_length(chosen.lengths, 4 * TOKENS_AT_ONCE[study.device])
    shape = (width + len(study.trunk.h) * heads * len(GOALS),)
    array, order = study.computed_once(chosen, "heads", settings, shape, batches, read_heads)
    array = torch.from_numpy(array[order])
    outputs, shares = array[:, :width].unflatten(1, (heads, -1)), array[:, width:]
    place = {text: i for i, text in enumerate(texts)}
    theirs = outputs[[place[other] for other in others]].to(study.device)  # (N, H, D)

    def read(trunk, batch):  # -> (B, H + 1, C)
        unchanged = read_unchanged(trunk, chosen.batch(batch)[0][0].to(study.device))
        vectors = []
        for some in (*([h] for h in range(heads)), [*range(heads)]):
            with attention_replaced(trunk, {block: heads_replaced(some, theirs[batch])}):
                vectors.append(read_last_token(trunk, unchanged).cpu())
        return torch.stack(vectors, 1).numpy()

    shape = heads + 1, width
    array, order = study.computed_once(chosen, "heads exchanged", settings, shape, batches, read)
    return torch.from_numpy(array[order]), shares.unflatten(1, (-1, heads, len(GOALS)))


def measure(study: Study) -> dict:
    """Exchange the output of each head between the texts of a pair, and see where it attends."""
    twins = exchange(study)
    if isinstance(twins, str):
        return {"question": QUESTION, "skipped": twins}
    vectors = patched_vectors(study, twins.texts, twins.others)  # stored by `patching`
    block = settled_in(twins.moved(vectors).tolist())
    vectors, shares = exchanged(study, twins.texts, twins.others, block - 1)
    *moved, together = twins.moved(vectors).tolist()
    shares = shares.mean(0)  # (L, H, 3)
    heads = [
        {"head": h, "moved": share, **dict(zip(GOALS, goals, strict=True))}
        for h, (share, goals) in enumerate(zip(moved, shares[block - 1].tolist(), strict=True), 1)
    ]
    most = sorted(heads, key=lambda head: -head["moved"])[:FEW]
    first = shares[..., list(GOALS).index("first")].mean(1).tolist()  # by block
    few = " and ".join(
        f"head {head['head']} by {percent(head['moved'])} (of its attention there, "
        f"{percent(head['differing'])} goes to tokens that differ between the two texts)"
        for head in most
    )
    return {
        "question": QUESTION,
        "headline": f"Of block {block}, all heads together move {percent(together, 0)} of the "
        f"score; head {most[0]['head']} alone moves {percent(most[0]['moved'], 0)}",
        "finding": f"The last token's share of the score rises most in block {block}. Its heads, "
        f"all exchanged at the last token, move the score by {percent(together)} of the distance "
        f"to the other text's: {few}. The first token gets at most {percent(max(first))} of the "
        "last token's attention, on average over the heads of a block (block "
        f"{1 + int(np.argmax(first))}). It has seen nothing but itself, and carries no rating of "
        "what follows: where heads that have nothing to fetch rest there, it is an attention sink "
        "(Xiao et al. 2023).",
        "chance": 0.0,
        "table": {
            "columns": ["head", "moves the score", *(f"attends to: {g}" for g in GOALS.values())],
            "rows": [
                [str(head["head"]), *(percent(head[key]) for key in ("moved", *GOALS))]
                for head in heads
            ]
            + [["all", percent(together), *["–"] * len(GOALS)]],
        },
        "block": block,
        "heads": heads,
        "most": most[0],
        "together": together,
        "first": first,
        "most_first": max(first),
    }


def draw(result: dict):
    """Draw for each head how far it moves the score, and where its attention goes."""
    heads = result["heads"]
    figure, (left, right) = figures.canvas(1.6 + 0.4 * len(heads), columns=2, sharey=True)
    y = [head["head"] for head in heads]
    left.barh(y, [head["moved"] for head in heads], color=figures.BLUE)
    left.set_xlabel("moves the score, of the way to the other text's")
    start = np.zeros(len(heads))
    colours = (figures.ORANGE, figures.GRID, figures.GREEN)
    for (key, label), colour in zip(GOALS.items(), colours, strict=True):
        shares = np.array([head[key] for head in heads])
        right.barh(y, shares, left=start, color=colour, label=label)
        start += shares
    right.set_xlabel("attention at the last token")
    right.set_xlim(0, 1)
    right.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize=9, handlelength=1)
    left.set(ylabel=f"head of block {result['block']}", yticks=y, ylim=(len(y) + 0.6, 0.4))
    for axes in (left, right):
        axes.grid(axis="y", visible=False)
        figures.percent_axis(axes.xaxis)
    figures.title(figure, result)
    return figure
