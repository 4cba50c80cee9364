"""Experiment 5 of `explain`: which vector, put into the other text of a pair, moves its score?

Activation patching: a text is read with one vector, at one layer and position, replaced by that of
the other text of its pair, which has the opposite label. What changes after it is computed again.
"""

import itertools

import numpy as np
import torch

from minigpt.data import pairs_of
from minigpt.explain import figures
from minigpt.explain.accuracy import percent
from minigpt.explain.hidden_states import FROM_END
from minigpt.explain.interventions import Unchanged, reread
from minigpt.explain.study import Study, part_of
from minigpt.model import GPT2

# N texts, B of them in a batch, C channels, L blocks, S replaced tokens, P positions: PATCHED

QUESTION = "Which vector, put into the other text of its pair, moves the score?"
PAIRS = 100  # at most
PATCHED = tuple(range(-FROM_END, 0))  # positions, from the end of both texts: -1 is the last token


@torch.no_grad()
def patch(trunk: GPT2, texts: Unchanged, layer: int, token: int, vectors):  # (B, S, C) -> (B, C)
    """Replace the vectors of S tokens from `token` on, at a layer (hidden_states.py).

    Returns the trunk's output at the last token. At the last layer, the vectors replace the output
    itself: there, those of the last token are all of it, by construction.
    """
    x = texts.layers[layer][:, token:].clone()
    x[:, : vectors.size(1)] = vectors
    if layer == len(trunk.h):
        return x[:, -1]
    past = texts.before(token)
    for i in range(layer, len(trunk.h)):
        x = trunk.h[i](x, past[i])
    return trunk.ln_f(x)[:, -1]


def patched_vectors(study: Study, texts: np.ndarray, others: np.ndarray) -> torch.Tensor:
    """Return the last token's vectors after patching at each layer and position.

    `texts` (N,) are texts of test, `others` those whose vectors they get; returns (N, L + 1, P, C).
    """
    tokens, states = study.tokens["test"], study.hidden_states["test"]

    def read(trunk, unchanged, batch):  # -> (B, L + 1, P, C)
        T, layers = unchanged.ids.size(1), []
        for layer in range(study.layers):
            theirs = [states.at(layer, position, others[batch]) for position in PATCHED]
            patched = [
                patch(trunk, unchanged, layer, T + position, x[:, None].to(study.device))
                for position, x in zip(PATCHED, theirs, strict=True)
            ]
            layers.append(torch.stack(patched, 1))
        return torch.stack(layers, 1)

    settings = {"patched": PATCHED, "with": study.depends_on(part_of(tokens, others))}
    shape = study.layers, len(PATCHED), study.trunk.config.n_embd
    return reread(study, part_of(tokens, texts), "patching", settings, shape, read)


def pairs_to_patch(study: Study) -> np.ndarray:  # -> (pairs, 2)
    """Return pairs of test, by index, whose texts have all the positions; a sample, if many."""
    lengths = study.tokens["test"].lengths
    pairs = [p for p in pairs_of(study.examples("test")) if lengths[p].min() >= FROM_END]
    pairs = np.array(pairs, int).reshape(-1, 2)
    random = np.random.default_rng(study.seed)
    return pairs[np.sort(random.permutation(len(pairs))[:PAIRS])]


def exchange(study: Study) -> tuple | str:
    """Return which texts of test get vectors, and those that they get them from, (N,) each; and a
    function of the last token's vectors, (N, ..., C) -> (...), that says how far the probe's scores
    of all texts move to those of the others, as a share. Or why there are none.
    """
    if not study.paired:
        return f"{study.dataset.name} has no pairs: texts of opposite labels, in a column `pair`"
    pairs = pairs_to_patch(study)
    if not len(pairs):
        return f"no pair of {study.dataset.name} has texts of at least {FROM_END} tokens"
    texts, others = pairs.flatten(), pairs[:, ::-1].flatten()
    probe = study.probe(study.last)  # (2, C)
    direction = probe[1] - probe[0]  # the score of a vector: its log odds of the second class
    score = study.last["test"] @ direction
    sign = 1 - 2.0 * study.classes["test"][texts]  # of the way to the other text's label
    distance = ((score[others] - score[texts]) * sign).sum()
    if not distance > 0:
        return "the probe does not tell the texts of a pair apart, so that no score can move"

    def moved(vectors):
        way = (vectors @ direction).movedim(0, -1) - score[texts]  # (..., N)
        return (way * sign).sum(-1) / distance

    return texts, others, moved


def measure(study: Study) -> dict:
    """Measure how far each vector moves the score of a text to that of the other of its pair."""
    twins = exchange(study)
    if isinstance(twins, str):
        return {"question": QUESTION, "skipped": twins}
    texts, others, moved = twins
    moved = moved(patched_vectors(study, texts, others)).tolist()  # (L + 1, P)
    return {
        "question": QUESTION,
        **words_and_table(study, moved, texts, others),
        "chance": 0.0,
        "pairs": len(texts) // 2,
        "places": PATCHED,
        "moved": moved,
    }


def settled_in(moved: list) -> int:
    """Return the block, from 1 on, in which the last token's share rises most.

    Layer n is what comes out of block n. The last block has its rise like the others: at its layer
    the share is 1 by construction, since all that is still to be fetched is fetched there.
    """
    rises = [after[-1] - before[-1] for before, after in itertools.pairwise(moved)]
    return 1 + int(np.argmax(rises))


def words_and_table(study: Study, moved: list, texts, others) -> dict:
    """Return the headline, the finding and the table."""
    ids = study.tokens["test"].ids
    same = sum(int(ids[a][-1] == ids[b][-1]) for a, b in zip(texts, others, strict=True))
    half = next(layer for layer, row in enumerate(moved) if row[-1] >= 0.5)
    rows = [
        [str(layer), *(percent(share) for share in row[:-9:-1])] for layer, row in enumerate(moved)
    ]
    return {
        "headline": f"From layer {half} on, the last token's vector moves most of the score",
        "finding": f"In the embeddings, none of the last {FROM_END} tokens moves the score by more "
        f"than {percent(max(moved[0]))} of the distance to the other text's. The last token, which "
        f"is the same in both texts for {same} of {len(texts)} texts, moves it by "
        f"{percent(moved[1][-1])} in layer 1, and by at least half from layer {half} on. In the "
        "last layer it is all of it, by construction: that vector is what the probe reads.",
        "half": half,
        "table": {"columns": ["layer", *map(str, PATCHED[:-9:-1])], "rows": rows},
    }


def draw(result: dict):
    """Draw how far each vector moves the score to that of the other text."""
    figure, axes = figures.canvas(1.5 + 0.32 * len(result["moved"]))
    figures.heatmap(axes, result["moved"], result["places"], 0.0, 1.0)
    axes.set(ylabel=figures.LAYERS, xlabel="position of the vector, from the end")
    caption = (
        "how far the score moves to that of the other text, in percent (top right: always 100)"
    )
    axes.set_title(caption, loc="right", fontsize=9.5)
    figures.title(figure, result)
    return figure
