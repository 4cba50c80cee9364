"""Experiment 9 of `explain`: if the text ended at this token, what would be predicted?

By the causal mask, a token's vector is what it would be if the text ended there. So a probe for
each layer is fitted on texts of train that end anywhere, and then applied at every token. A probe
that was fitted at the ends of whole texts only, at a full stop, is confident elsewhere, and wrong:
the results have it, too.
"""

import numpy as np
import torch

from minigpt.data import pairs_of
from minigpt.explain import figures
from minigpt.explain.accuracy import accuracy_of, percent
from minigpt.explain.hidden_states import every_layer
from minigpt.explain.study import Study
from minigpt.explain.word_by_word import OWN_KIND, word_by_word
from minigpt.head import Vectors

# N texts, B of them in a batch, P positions in each, C channels, L blocks, K classes

QUESTION = "If the text ended here, what would be predicted?"
ANYWHERE = 4  # random positions in each text of train at which it ends, besides its end
SHARES = (0.25, 0.5, 0.75, 1.0)  # of a test text that has been read


def measure(study: Study) -> dict:
    """Read texts token by token, and see when the prediction is made."""
    if len(study.labels) != 2:
        why = f"the figure has two colours, and the data {len(study.labels)} classes"
        return {"question": QUESTION, "skipped": why}
    ends = {split: random_positions(study, split) for split in ("train", "dev")}
    vectors = {split: vectors_at(study, split, positions) for split, positions in ends.items()}
    parts = [
        parts_at(study, {s: x[:, layer] for s, x in vectors.items()}, ends)
        for layer in range(study.layers)
    ]
    probes = study.probes(parts, "reading, probes")
    at_ends = study.probe(study.last)
    lengths = study.tokens["test"].lengths[:, None]
    read = np.ceil(lengths * np.array(SHARES)).astype(int) - 1  # (N, shares): the last token of it
    shares = []
    for share, x in zip(SHARES, vectors_at(study, "test", read)[:, -1].unbind(1), strict=True):
        logits = [x @ probes[-1].T, x @ at_ends.T]
        anywhere, ended = (accuracy_and_confidence(study, one) for one in logits)
        shares.append({"share": share, "anywhere": anywhere, "at ends": ended})
    return {
        "question": QUESTION,
        "headline": "Each word in the colour of the prediction if the text ended there",
        "finding": finding(shares[SHARES.index(0.5)], shares[-1]),
        "chance": study.chance,
        "table": table_by_share(shares),
        "labels": study.labels,
        "shares": shares,
        # The logits of the last share, which is the whole text
        "sentences": word_by_word(study, probes, at_ends, clearest_pair(study, logits)),
        "probes": [probe.tolist() for probe in probes],  # for the page, to read other texts
        "head": at_ends.tolist(),
    }


def random_positions(study: Study, split: str) -> np.ndarray:  # -> (N, P)
    """Return random positions in each text, and its last."""
    random, lengths = np.random.default_rng(study.seed), study.tokens[split].lengths
    positions = random.integers(lengths[:, None], size=(len(lengths), ANYWHERE))
    return np.column_stack((positions, lengths - 1))


def vectors_at(study: Study, split: str, positions: np.ndarray) -> torch.Tensor:
    """Return a split's vectors at positions (N, P) at all layers: (N, L + 1, P, C)."""
    texts = study.tokens[split]

    def read(trunk, batch):  # -> (B, L + 1, P, C)
        (ids, _), _ = texts.batch(batch)
        at = np.arange(len(batch))[:, None], positions[batch]
        layers = [x.cpu()[at] for x in every_layer(trunk, ids.to(study.device))]
        return torch.stack(layers, 1).numpy()

    shape = study.layers, positions.shape[1], study.trunk.config.n_embd
    settings, batches = {"at": positions.tolist()}, study.batches(texts)
    array, order = study.computed_once(texts, "parts", settings, shape, batches, read)
    return torch.from_numpy(array[order])


def parts_at(study: Study, vectors: dict, positions: dict) -> tuple[Vectors, Vectors]:
    """Return the vectors (N, P, C) of each split as if each were of a text that ends there."""
    return tuple(
        Vectors(
            x.flatten(0, 1).numpy(),
            study.classes[split].repeat_interleave(x.size(1)),
            positions[split].flatten() + 1,
        )
        for split, x in vectors.items()
    )


def accuracy_and_confidence(study: Study, logits) -> dict:  # (N, 2)
    """Return the accuracy on test, and the mean probability of the predicted class."""
    confidence = logits.softmax(1).amax(1).mean().item()
    accuracy = accuracy_of(logits, study.examples("test"), study.labels)
    return accuracy | {"sure": confidence}


def clearest_pair(study: Study, logits: list[torch.Tensor]) -> list[int]:  # (N, 2) each
    """Return the pair of test, by index, of which all are right, and surest; or nothing."""
    right = [x.softmax(1)[range(len(x)), study.classes["test"]] for x in logits]
    sure = torch.stack(right).amin(0)  # (N,): the least probability of the true class
    pairs = pairs_of(study.examples("test"))
    best = max(pairs, key=lambda pair: sure[pair].min(), default=[])
    return best if best and sure[best].min() > 0.5 else []


def finding(half: dict, whole: dict) -> str:
    """Return what reading half of a text, and all of it, shows, in words."""
    anywhere, at_ends = (
        [percent(row[way]["accuracy"]) for row in (half, whole)] for way in ("anywhere", "at ends")
    )
    return (
        f"A probe fitted on texts that end anywhere classifies {anywhere[0]} of the test texts "
        f"correctly when half of each is read, and {anywhere[1]} at their ends. One fitted at ends "
        f"only has {at_ends[1]} there; halfway, its mean confidence is "
        f"{percent(half['at ends']['sure'])}, and its accuracy {at_ends[0]}."
    )


def table_by_share(shares: list[dict]) -> dict:
    """Return a table with a row for each share of the texts."""
    paired = all("pairs" in row["anywhere"] for row in shares)
    columns = ["read so far", "accuracy", "95 % interval", "confidence"]
    columns += ["pairs in order"] * paired + ["fitted at ends: accuracy", "confidence"]
    rows = []
    for row in shares:
        anywhere, at_ends = row["anywhere"], row["at ends"]
        low, high = anywhere["interval"]
        cells = [f"{100 * row['share']:.0f} %", percent(anywhere["accuracy"])]
        cells += [f"{100 * low:.1f} to {100 * high:.1f}", percent(anywhere["sure"])]
        cells += [percent(anywhere["pairs"])] if paired else []
        rows.append([*cells, percent(at_ends["accuracy"]), percent(at_ends["sure"])])
    return {"columns": columns, "rows": rows}


# --- the figure; all lengths are in points: 8 inches are 576 ---

LEFT, RIGHT, LINE = 66, 572, 21
SHOWN, LONG = 4, 60  # groups of texts, and tokens of each text


def draw(result: dict):
    """Draw some texts word by word, in the colours of the predictions if the text ended there."""
    from matplotlib.patches import Rectangle

    figure, axes = figures.canvas(1.0)
    figure.set_layout_engine("none")
    font, words, names, sources, y = figures.font(11), [], [], [], 58
    for texts in texts_to_draw(result["sentences"]):
        sources.append((y - 20, source(texts[0])))
        for text in texts:
            names.append((y, text["label"] or ""))
            placed, y = place_words(figure, font, text, y)
            words += placed
        y += 24
    y -= 10
    names.append((y + 6, "predicted:"))
    negative, positive = result["labels"]
    scale = (f"100 % {negative[:16]}", 0), ("50 %", 0.5), (f"100 % {positive[:16]}", 1)
    for i, (name, p) in enumerate(scale):
        words.append((LEFT + 160 * i, y + 6, 156, name, p))

    height = y + 28
    figure.set_figheight(height / 72)
    axes.set(position=(0, 0, 1, 1), xlim=(0, 576), ylim=(height, 0))
    axes.set_axis_off()
    ink = figures.INK
    axes.text(4, 18, result["headline"], color=ink, fontsize=13, fontweight="bold", va="center")
    for y, name in sources:
        axes.text(LEFT, y, name[:60], color=ink, fontsize=9, style="italic", va="center")
    for y, name in names:
        axes.text(58, y, name[:12], color=ink, fontsize=9, ha="right", va="center")
    for x, y, width, word, p in words:
        colour, alpha = figures.BLUE if p >= 0.5 else figures.ORANGE, 0.07 + 0.43 * abs(2 * p - 1)
        box = Rectangle((x, y - 9), width, 18, linewidth=0, facecolor=colour, alpha=alpha)
        axes.add_patch(box)
        centre = {"ha": "center", "va": "center_baseline", "parse_math": False}
        axes.text(x + width / 2, y, word, color=ink, fontproperties=font, **centre)
    return figure


def source(text: dict) -> str:
    """Return where a text is from, in words."""
    if text["label"] is None:
        return "a text of yours"
    if text["kind"] == OWN_KIND:
        return "our own, not of the data set"
    return f"{text['kind']}, of the test texts" if text["kind"] else "of the test texts"


def texts_to_draw(sentences: list[dict]) -> list[list[dict]]:
    """Return a few groups of texts, pairs together: kinds that have not been drawn come first."""
    groups = {}
    for i, text in enumerate(sentences):
        groups.setdefault((text["kind"], text["pair"] or i), []).append(text)
    first_of_kind = {kind: (kind, pair) for kind, pair in reversed(groups)}.values()
    return [groups[key] for key in sorted(groups, key=lambda key: key not in first_of_kind)[:SHOWN]]


def place_words(figure, font, text: dict, y: float) -> tuple[list, float]:
    """Return (x, y, width, word, probability) for each word of a text, and the next text's y."""
    renderer, placed, x = figure.canvas.get_renderer(), [], LEFT
    for token, p in zip(text["tokens"][:LONG], text["positive"][-1], strict=False):
        word = "".join(c if c.isprintable() else "◌" for c in token.strip()) or "◌"
        word = word[:40]
        pixels = renderer.get_text_width_height_descent(word, font, False)[0]
        width = pixels * 72 / figure.dpi + 4
        x += 5 if token[:1].isspace() else 1
        if x + width > RIGHT:
            x, y = LEFT, y + LINE
        placed.append((x, y, width, word, p))
        x += width
    return placed, y + 25
