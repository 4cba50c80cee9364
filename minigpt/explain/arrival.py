"""Experiment 10 of `explain`: does the rating arrive while the trunk learns to predict?"""

from minigpt.explain import figures
from minigpt.explain.accuracy import percent, versus_chance
from minigpt.explain.snapshots import FILE, measured_sets, own_name
from minigpt.explain.study import Study

# A data set has points, one for each snapshot; a point has the tokens seen, the loss on held-out
# text, and for each of PLACES what `accuracy_of` returns, also for each kind of text

QUESTION = "Does the rating arrive while the model learns to predict the next token?"
PLACES = {  # where the rating is read: title, colour, mark
    "last": ("last token", figures.BLUE, "o"),
    "end": ("<|endoftext|> after it", figures.GREEN, "s"),
    "words": ("good or bad as next word", figures.ORANGE, "D"),
    "first": ("first token", figures.INK, "^"),
}
KINDS = {"plain": (figures.BLUE, "o"), "negation": (figures.RED, "D")}  # which comes first?


def measure(study: Study) -> dict:
    """Fit the same probe on each snapshot of the pre-training, or take what is stored of that."""
    sets = measured_sets(study)
    if not sets:
        why = f"{study.checkpoint.name} has no snapshots of its pre-training, nor {FILE} of them"
        return {"question": QUESTION, "skipped": why}
    ends = {
        name: {"begin": one["points"][0], "end": one["points"][-1]} for name, one in sets.items()
    }
    begin, end = ends.get(own_name(study), next(iter(ends.values()))).values()
    return {
        "question": QUESTION,
        "headline": f"At the last token, from {percent(begin['last']['accuracy'], 0)} to "
        f"{percent(end['last']['accuracy'], 0)}, while the loss of predicting the next token falls "
        f"from {begin['loss']:.1f} to {end['loss']:.1f}",
        "finding": " ".join(finding(name, **one) for name, one in sets.items()),
        "table": table(sets),
        "ends": ends,
        "sets": sets,
    }


def curve(points: list[dict], place: str, kind: str | None = None) -> list[dict]:
    """Return the accuracy at each point; of a kind of text, the share of pairs in order."""
    if kind is None:
        return [point[place] for point in points]
    of_kind = [point[place]["kinds"][kind] for point in points]
    return [{"accuracy": one["pairs"], "interval": one["pairs_interval"]} for one in of_kind]


def has_kinds(points: list[dict]) -> bool:
    """Return whether there are pairs of the kinds to compare."""
    kinds = points[-1]["last"].get("kinds", {})
    return all("pairs" in kinds.get(kind, {}) for kind in KINDS)


# --- in words and a figure ---


def millions(point: dict) -> str:
    return f"{round(point['tokens'] / 1e6, 1):g} million tokens"


def finding(name: str, points: list[dict], chance: float, **_) -> str:
    """Return what comes when on one data set, in words."""
    last, first = curve(points, "last"), curve(points, "first")
    said = (
        f"On {name}, a probe at the last token has {percent(last[0]['accuracy'])} after "
        f"{millions(points[0])} and {percent(last[-1]['accuracy'])} after {millions(points[-1])}, "
        f"{since(points, last, chance)}. At the first token it has "
        f"{percent(first[-1]['accuracy'])} in the end, {since(points, first, chance)}."
    )
    if "words" in points[-1]:
        word = curve(points, "words")
        said += f" The next word, without a probe, has {percent(word[-1]['accuracy'])} in the end, "
        said += f"{since(points, word, chance)}."
    return f"{said} {which_is_first(points)}" if has_kinds(points) else said


def floor(rows: list[dict], chance: float) -> float:
    """Return what a share must be above to have risen: chance, and what random weights give."""
    return max(chance, rows[0]["interval"][1])


def since(points: list[dict], rows: list[dict], chance: float) -> str:
    """Say from which point on, to the last one, the whole interval shows that it has risen."""
    not_above = [i for i, row in enumerate(rows) if row["interval"][0] <= floor(rows, chance)]
    start = not_above[-1] + 1 if not_above else 0
    if start == len(points):
        return f"{versus_chance(rows[-1], chance)} and not clearly above its start"
    return f"clearly above its start from {millions(points[start])} on"


def which_is_first(points: list[dict]) -> str:
    """Say which pairs get in order first: those of plain texts, or those with a negation.

    One is first where it has risen, and its interval is above the other's. To compare when each of
    them has risen would not do: fewer pairs have a wider interval, and would come later.
    """
    plain, negation = curves = [curve(points, "last", kind) for kind in KINDS]
    low, high = negation[-1]["interval"]
    said = (
        f"Of the plain pairs, {percent(plain[-1]['accuracy'])} are in order in the end, "
        f"{since(points, plain, 0.5)}; of those with a negation, "
        f"{percent(negation[-1]['accuracy'])} ({100 * low:.1f} to {100 * high:.1f}), "
        f"{since(points, negation, 0.5)}."
    )
    names = ("The tone of single words", "What a negation turns around")
    for i, point in enumerate(points):
        for name, ours, others in zip(names, curves, curves[::-1], strict=True):
            if ours[i]["interval"][0] > max(floor(ours, 0.5), others[i]["interval"][1]):
                return f"{said} {name} comes first: the intervals are apart at {millions(point)}."
    return f"{said} Which comes first is not to be told from these intervals."


def table(sets: dict) -> dict:
    """Return the table of all data sets, with a row for each point."""
    shown = {title: (place, None) for place, (title, *_) in PLACES.items()}
    if any(has_kinds(one["points"]) for one in sets.values()):
        shown |= {f"{k} pairs, {PLACES[p][0]}": (p, k) for p in ("last", "words") for k in KINDS}

    def cell(point: dict, place: str, kind: str | None) -> str | None:
        if place in point and (kind is None or has_kinds([point])):
            return percent(curve([point], place, kind)[0]["accuracy"])
        return None

    rows = [
        [f"{name}, {millions(p)}", f"{p['loss']:.2f}", *(cell(p, *what) for what in shown.values())]
        for name, one in sets.items()
        for p in one["points"]
    ]
    return {"columns": ["after", "held-out loss", *shown], "rows": rows}


def draw(result: dict):
    """Draw what can be read over the tokens seen, and over the loss on held-out text."""
    panels = []  # what `draw_lines` takes
    for name, one in result["sets"].items():
        points, places = one["points"], [p for p in PLACES if p in one["points"][-1]]
        lines = [(curve(points, place), *PLACES[place]) for place in places]
        panels.append((f"{name}: accuracy", points, one["chance"], lines))
        if has_kinds(points):
            lines = [(curve(points, "last", k), k, *style) for k, style in KINDS.items()]
            panels.append((f"{name}: pairs in order, last token", points, 0.5, lines))
    height, n = 0.9 + 2.6 * len(panels), len(panels)
    figure, axes = figures.canvas(height, n, 2, sharex="col", sharey="row", squeeze=False)
    for row, panel in zip(axes, panels, strict=True):
        draw_lines(*row, *panel)
    seen = [p["tokens"] for _, points, *_ in panels for p in points if p["tokens"]]
    ticks = [t for t in (0, 1e5, 1e6, 1e7, 1e8, 1e9) if t <= max(seen)]
    left, right = axes[-1]
    left.set_xscale("symlog", linthresh=min(seen), linscale=0.4)  # it has a zero
    left.set_xticks(ticks, [f"{t / 1e6:g}" for t in ticks])
    left.set_xlim(-min(seen) / 10, 1.3 * max(seen))
    left.minorticks_off()
    left.set_xlabel("million tokens seen")
    right.invert_xaxis()
    right.set_xlabel("loss on held-out text, in nats a token")
    figures.title(figure, result)
    return figure


def draw_lines(left, right, title: str, points: list[dict], chance: float, lines: list) -> None:
    """Draw each curve of `lines`, (curve, label, colour, mark), over the tokens and the loss."""
    for axes, key in ((left, "tokens"), (right, "loss")):
        x = [point[key] for point in points]
        for rows, label, colour, mark in lines:
            figures.line(axes, x, rows, colour, mark, label)
        axes.axhline(chance, color=figures.INK, ls=figures.DASHES, lw=1, label="chance")
    figures.percent_axis(left.yaxis)
    left.set_title(title, loc="left", fontsize=11)
    right.legend(fontsize=9, loc="upper left")
