"""Experiment 2 of `explain`: at which layer, and at which position, can the rating be read?"""

import numpy as np

from minigpt.datasets import SPLITS
from minigpt.explain import figures
from minigpt.explain.accuracy import percent, versus_chance
from minigpt.explain.hidden_states import FROM_END, FROM_START
from minigpt.explain.study import Study

QUESTION = "At which layer, and at which position, can the rating be read?"
IN_TABLE = (0, 1, 3, 7, -16, -8, -4, -2, -1)  # positions, in the order of the figure, which has all


def measure(study: Study) -> dict:
    """Fit a probe at each layer and position that at least half of the texts have."""
    lengths = np.concatenate([study.tokens[split].lengths for split in SPLITS])
    ends = [-n for n in range(1, FROM_END + 1) if (lengths >= n).mean() >= 0.5]
    starts = [n for n in range(FROM_START) if (lengths > n).mean() >= 0.5]
    cells = [(layer, position) for layer in range(study.layers) for position in ends + starts]
    top, layers = study.layers - 1, range(study.layers)
    vectors = [study.last if cell == (top, -1) else study.at(*cell) for cell in cells]
    logits = dict(zip(cells, study.logits(vectors, "where"), strict=True))
    at = {cell: study.accuracy(x) for cell, x in logits.items()}
    accuracy = {cell: measured["accuracy"] for cell, measured in at.items()}
    others = {"layer_1": (1, -1), "neighbour": (top, -2)}
    against = {
        name: study.difference(logits[cell], logits[top, -1])
        for name, cell in others.items()
        if cell in logits and not logits[cell].isnan().any()
    }
    shown = [position for position in IN_TABLE if position in ends + starts]
    return {
        "question": QUESTION,
        "headline": f"At the last token: {percent(accuracy[0, -1], 0)} in the embeddings, "
        f"{percent(accuracy[top, -1], 0)} in the last layer",
        "finding": f"At the last token, a linear probe has an accuracy of "
        f"{percent(accuracy[0, -1])} on the embeddings "
        f"({versus_chance(at[0, -1], study.chance)}), {percent(accuracy[1, -1])} after one block "
        f"and {percent(accuracy[top, -1])} in the last layer. At the first token it is at most "
        f"{percent(max(accuracy[layer, 0] for layer in layers))}. Layer 1 against the last layer, "
        f"at the last token: {against['layer_1']['words']}.",
        "chance": study.chance,
        "table": {
            "columns": ["layer", *map(str, shown)],
            "rows": [[str(n), *(percent(accuracy[n, p]) for p in shown)] for n in layers[::-1]],
        },
        "ends": ends,
        "starts": starts,
        "from_end": [[accuracy[layer, p] for p in ends] for layer in layers],
        "from_start": [[accuracy[layer, p] for p in starts] for layer in layers],
        "last": [at[layer, -1] for layer in layers],
        "first": [at[layer, 0] for layer in layers],
        "against": against,
    }


def draw(result: dict):
    """Draw the accuracy at each layer and position: those from the start, and from the end."""
    starts, ends, chance = result["starts"], result["ends"][::-1], result["chance"]
    layers = len(result["from_end"])
    widths = {"width_ratios": [len(starts), len(ends)]}
    figure, (left, right) = figures.canvas(
        1.5 + 0.32 * layers, columns=2, sharey=True, gridspec_kw=widths
    )
    cells = [value for part in ("from_start", "from_end") for row in result[part] for value in row]
    scale = chance, max(*cells, chance + 0.05)
    figures.heatmap(left, result["from_start"], starts, *scale)
    figures.heatmap(right, [row[::-1] for row in result["from_end"]], ends, *scale)
    left.set(ylabel=figures.LAYERS, xlabel="tokens from the start")
    right.set_xlabel("tokens from the end; -1 is the last")
    caption = f"accuracy in percent; the palest is chance, {100 * chance:.0f}"
    right.set_title(caption, loc="right", fontsize=9.5)
    figures.title(figure, result)
    return figure
