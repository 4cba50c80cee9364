"""Experiments on the way to the last token: which attention brings the rating, and from where.

Each function returns plain values, which plots.py draws.
"""

import numpy as np
import torch

from minigpt.data import Tokens
from minigpt.datasets.load import SPLITS
from minigpt.explain.bench import Bench
from minigpt.explain.findings import against_chance, percent, table
from minigpt.explain.interventions import cut_vectors, cuts, patched_vectors
from minigpt.explain.states import FROM_END

# N texts, C channels, L blocks

PAIRS = 100  # to patch, at most


def knock_out(bench: Bench) -> dict:
    """Cut the last token's attention to the others, in some blocks or beyond a few tokens.

    A new probe is fitted each time: the question is what is still there, not what confuses a probe.
    """
    blocks = len(bench.trunk.h)
    ways, half = cuts(blocks), max(1, blocks // 2)
    vectors = {split: cut_vectors(bench, bench.tokens[split]) for split in SPLITS}
    found = {}
    for i, (kind, where) in enumerate(ways):
        one = {split: torch.from_numpy(array[:, i]) for split, array in vectors.items()}
        title = {
            "nothing": "nothing is cut",
            "from": f"cut in block {where} and above" if where else "cut in all blocks",
            "up_to": f"cut in blocks up to {where}",
            "only": f"cut in block {where} only",
            "window": f"sees the last {where} tokens only" if where > 1 else "sees itself only",
        }[kind]
        found[kind, where] = {"title": title, "kind": kind, "at": where} | bench.accuracy(one)
        if kind == "window":
            among = bench.alike(lambda ids, w=where: tuple(ids[-w:]))
            found[kind, where] |= among_alike(bench, one, among)
        if (kind, where) == ("from", 0):
            among = bench.alike(lambda ids: (len(ids), ids[-1]))
            found[kind, where] |= among_alike(bench, one, among)
    whole, none, length = found["nothing", 0], found["from", 0], bench.accuracy(bench.lengths())
    single = min((found["only", b] for b in range(blocks)), key=lambda row: row["accuracy"])
    late, early = found["from", min(half, blocks - 1)], found["up_to", half - 1]
    return {
        "question": "In which blocks does the last token's attention fetch the rating?",
        "headline": f"Without attention the last token gets {percent(none['accuracy'], 0)}, "
        f"with all of it {percent(whole['accuracy'], 0)}",
        "finding": f"With all attention of the last token cut, {percent(none['accuracy'])} are "
        f"right, {against_chance(none, bench.chance)} (its place gives the text's length away, "
        f"which by itself is worth {percent(length['accuracy'])}); with nothing cut, "
        f"{percent(whole['accuracy'])}. Cut in the lower half of the blocks, "
        f"{percent(early['accuracy'])}; in the upper half, {percent(late['accuracy'])}. Cutting a "
        f"single block costs {100 * (whole['accuracy'] - single['accuracy']):.1f} points at most.",
        "chance": bench.chance,
        "table": table("the last token's attention", {r["title"]: r for r in found.values()}),
        "rows": {f"{kind}_{at}": row for (kind, at), row in found.items()},
        "length": length,
    }


def among_alike(bench: Bench, vectors: dict, among: list[int]) -> dict:
    """Judge a probe on twins that are the same in all that their last token is given of them."""
    found = {"alike": len(among)}
    return found | ({"alike_accuracy": bench.accuracy(vectors, among)["accuracy"]} if among else {})


def patching(bench: Bench) -> dict:
    """Put a twin's vector in place of a text's own: where does the verdict go over to the twin?"""
    question = "Which vector, put in its twin's place, takes the verdict along?"
    if not bench.paired:
        why = f"{bench.dataset.name} has no pairs: twins with opposite labels, in a column `pair`"
        return {"question": question, "skipped": why}
    texts, twins = twins_of(bench)
    if not len(texts):
        why = f"no two twins of {bench.dataset.name} are {FROM_END} tokens long or longer"
        return {"question": question, "skipped": why}
    places = list(range(-FROM_END, 0))
    probe = bench.probe(bench.at(bench.layers - 1, -1))
    vectors = torch.from_numpy(patched_vectors(bench, texts, twins, places))
    scores = probe.logits(vectors.flatten(0, 2))[:, 1].view(vectors.shape[:3])  # (N, L + 1, places)
    own = probe.logits(bench.pooled(texts))[:, 1]  # (N,): log odds
    theirs = own[twins]
    aim = 1 - 2.0 * texts.labels  # where the twin's rating is: 1 or -1
    apart = ((theirs - own) * aim).sum()
    if not apart > 0:
        why = "the probe does not tell the twins apart: there is no verdict to move"
        return {"question": question, "skipped": why}
    moved = ((scores - own[:, None, None]) * aim[:, None, None]).sum(0) / apart
    differ = (own > 0) != (theirs > 0)
    over = ((scores > 0) == (theirs > 0)[:, None, None])[differ].double().mean(0)
    block = next(layer for layer in range(bench.layers) if moved[layer, -1] >= 0.5)
    early = moved[0].max().item()
    same = sum(
        int(ids[-1] == texts.ids[twin][-1]) for ids, twin in zip(texts.ids, twins, strict=True)
    )
    return {
        "question": question,
        "headline": f"From layer {block} on, the last token's vector carries most of the verdict",
        "finding": f"Put into the embeddings, no single one of the last {FROM_END} tokens moves "
        f"the score by more than {percent(early)} of the way to the twin's; at the last token, "
        f"which is the same in both twins in {same} of {len(texts)} texts, the share is "
        f"{percent(moved[1, -1].item())} at layer 1 and at least half from layer {block} on.",
        "chance": 0.0,
        "table": {
            "columns": ["layer", *(str(place) for place in places[::-1][:8])],
            "rows": [
                [str(layer), *(percent(x) for x in row.flip(0)[:8].tolist())]
                for layer, row in enumerate(moved)
            ],
        },
        "pairs": len(texts) // 2,
        "texts_with_differing_verdicts": int(differ.sum()),
        "places": places,
        "moved": moved.tolist(),
        "gone_over": over.tolist() if differ.any() else [],
    }


def twins_of(bench: Bench) -> tuple[Tokens, np.ndarray]:  # -> (N texts), (N,)
    """Return the texts of test that have a twin, and the number of each one's twin among them."""
    texts, rows = bench.tokens["test"], {}
    for i, example in enumerate(bench.examples("test")):
        if example.pair and texts.lengths[i] >= FROM_END:
            rows.setdefault(example.pair, []).append(i)
    pairs = np.array([pair for pair in rows.values() if len(pair) == 2]).reshape(-1, 2)
    random = np.random.default_rng(bench.seed)
    pairs = pairs[np.sort(random.permutation(len(pairs))[:PAIRS])]
    chosen = pairs.flatten()
    ids = [texts.ids[i] for i in chosen]
    return Tokens(ids, texts.labels[torch.from_numpy(chosen)]), np.arange(len(chosen)) ^ 1
