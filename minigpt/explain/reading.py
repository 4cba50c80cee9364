"""Experiment 8 of `explain`: the verdict if the text ended at each token, and where attention goes.

By the causal mask, a token's vector is what it would be if the text ended there. So a probe for
each layer is fitted on train texts that end anywhere, and then read at every token. One that has
only seen where whole texts end, at a full stop, is sure of itself elsewhere, and wrong: the results
have it, too.
"""

import numpy as np
import torch
from tqdm import tqdm

from minigpt.data import AT_ONCE, token_batches
from minigpt.explain.bench import Bench
from minigpt.explain.findings import percent
from minigpt.explain.probes import Probe, fit_probe, judge
from minigpt.explain.sentences import sentences
from minigpt.explain.states import every_layer, kept
from minigpt.fast.packed import packed

# N texts, B of them in a batch, P places in each, C channels, L blocks

ANYWHERE = 4  # places at which each train text is cut, at random, besides its end
SHARES = (0.25, 0.5, 0.75, 1.0)  # of a test text that has been read
QUESTION = "If the text ended here, what would the verdict be?"


def reading(bench: Bench) -> dict:
    """Read texts token by token, and see when the verdict comes about."""
    if len(bench.labels) != 2:
        about = f"a strip has two colours, and the data {len(bench.labels)} classes"
        return {"question": QUESTION, "skipped": about}
    ended = {split: vectors(bench, split, anywhere(bench, split)) for split in ("train", "dev")}
    layers = range(bench.layers)
    probes = [fit(bench, {s: x[:, layer] for s, x in ended.items()}) for layer in layers]
    at_ends = fit(bench, {s: x[:, -1, -1:] for s, x in ended.items()})
    lengths = bench.tokens["test"].lengths[:, None]
    parts = vectors(bench, "test", np.ceil(lengths * np.array(SHARES)).astype(int) - 1)[:, -1]
    found = []
    for share, x in zip(SHARES, parts.unbind(1), strict=True):  # (N, C)
        ways = {"anywhere": probes[-1].logits(x), "at ends": at_ends.logits(x)}
        found.append({"share": share} | {way: judged(bench, x) for way, x in ways.items()})
    half, whole = found[SHARES.index(0.5)], found[-1]
    return {
        "question": QUESTION,
        "headline": "Each word in the colour of the verdict if the text ended there",
        "finding": finding(half, whole),
        "chance": bench.chance,
        "table": table(found),
        "shares": found,
        "sentences": sentences(bench, probes),
    }


def anywhere(bench: Bench, split: str) -> np.ndarray:  # -> (N, P)
    """Return places at random in each text, and its last."""
    random, lengths = np.random.default_rng(bench.seed), bench.tokens[split].lengths
    places = random.integers(lengths[:, None], size=(len(lengths), ANYWHERE))
    return np.column_stack((places, lengths - 1))


def vectors(bench: Bench, split: str, places: np.ndarray) -> torch.Tensor:
    """Return the vectors of a split's texts at places (N, P), at all layers: (N, L + 1, P, C)."""
    texts = bench.tokens[split]
    batches = token_batches(texts.lengths, AT_ONCE[bench.device])

    def pieces():  # (B, L + 1, P, C) each
        trunk = packed(bench.trunk, bench.layers)
        for rows in tqdm(batches, desc="parts of texts", disable=bench.quiet or None, leave=False):
            (ids, _), _ = texts.batch(rows)
            at = np.arange(len(rows))[:, None], places[rows]
            layers = [x.cpu()[at] for x in every_layer(trunk, ids.to(bench.device))]
            yield torch.stack(layers, 1).numpy()

    about = bench.about(texts) | {"at": places.tolist()}
    title = f"vectors of {len(texts)} texts that end early, {bench.checkpoint.name}"
    shape = (len(texts), bench.layers, places.shape[1], bench.trunk.config.n_embd)
    order = np.argsort(np.concatenate(batches))
    return torch.from_numpy(kept(about, title, shape, pieces)[order])


def fit(bench: Bench, vectors: dict[str, torch.Tensor]) -> Probe:  # (N, P, C) by split
    """Fit a probe on the vectors at all places of all texts."""
    found = []
    for split in ("train", "dev"):
        x = vectors[split]
        found += [x.flatten(0, 1), bench.tokens[split].labels.repeat_interleave(x.size(1))]
    return fit_probe(*found, len(bench.labels))


def judged(bench: Bench, logits) -> dict:  # (N, 2)
    """Judge a probe on test; how sure it is, is the mean probability of the class it favours."""
    sure = logits.softmax(1).amax(1).mean().item()
    return judge(logits, bench.examples("test"), bench.labels, bench.seed) | {"sure": sure}


def finding(half: dict, whole: dict) -> str:
    """Say what the rows of the table for half of a text and for all of it come to."""
    ours, ends = (
        [percent(row[way]["accuracy"]) for row in (half, whole)] for way in ("anywhere", "at ends")
    )
    sure = percent(half["at ends"]["sure"])
    return (
        f"A plane fitted on texts that end anywhere rates {ours[0]} of the test texts rightly when "
        f"half of each is read, and {ours[1]} at their ends. One that has only seen ends does so "
        f"for {ends[1]} there; halfway, it is {sure} sure, and right about {ends[0]}."
    )


def table(found: list[dict]) -> dict:
    """Return the table: a row for each share of the texts."""
    paired = all("pairs" in row["anywhere"] for row in found)
    columns = ["read so far", "accuracy", "95 % interval", "how sure"]
    columns += ["pairs in order"] * paired + ["fitted at ends: accuracy", "how sure"]
    rows = []
    for row in found:
        ours, ends = row["anywhere"], row["at ends"]
        low, high = ours["interval"]
        cells = [f"{100 * row['share']:.0f} %", percent(ours["accuracy"])]
        cells += [f"{100 * low:.1f} to {100 * high:.1f}", percent(ours["sure"])]
        cells += [percent(ours["pairs"])] if paired else []
        rows.append([*cells, percent(ends["accuracy"]), percent(ends["sure"])])
    return {"columns": columns, "rows": rows}
