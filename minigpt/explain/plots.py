"""The figures of `explain`: one function for each experiment. Draws results, knows no models."""

import textwrap

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from minigpt.explain.strips import reading
from minigpt.explain.style import (
    BLUE,
    GREEN,
    INK,
    ON_DARK,
    ON_PALE,
    ORANGE,
    PALE,
    RED,
    canvas,
    in_style,
)

DASHES = (0, (4, 3))  # chance, and other lines to compare with


def title(figure: Figure, result: dict) -> None:
    """Write over a figure what it shows."""
    said = "\n".join(textwrap.wrap(result["headline"], 68))
    figure.suptitle(said, x=0.01, ha="left", weight="bold", size=13)


def percent_axis(axis) -> None:
    axis.set_major_locator(MaxNLocator(steps=(1, 2, 5, 10)))
    axis.set_major_formatter(lambda x, _: f"{100 * x:.0f} %")


def dots(axes, names: list, rows: list[dict], chance: float) -> None:
    """Draw a row for each of `names`: its accuracy, and its pairs in order, with intervals."""
    marks = [("accuracy", "interval", BLUE, "o", "texts right")]
    if any("pairs" in row for row in rows):
        marks.append(("pairs", "pairs_interval", ORANGE, "D", "pairs in order"))
    for m, (value, interval, colour, shape, label) in enumerate(marks):
        there = [i for i, row in enumerate(rows) if value in row]
        y = [i + (m - (len(marks) - 1) / 2) * 0.28 for i in there]
        x = [rows[i][value] for i in there]
        lines = [rows[i].get(interval, (rows[i][value],) * 2) for i in there]
        axes.hlines(y, [low for low, _ in lines], [high for _, high in lines], colour, lw=2)
        axes.plot(x, y, shape, color=colour, ms=7, label=label)
        for value_here, where in zip(x, y, strict=True):
            axes.annotate(
                f"{100 * value_here:.1f}", (1.01, where), xycoords=("axes fraction", "data"),
                color=colour, va="center", fontsize=10, annotation_clip=False,
            )  # fmt: skip
    axes.axvline(chance, color=INK, ls=(0, (4, 3)), lw=1)
    axes.annotate(
        "chance", (chance, -0.62), ha="center", va="bottom", fontsize=9.5, annotation_clip=False
    )
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    percent_axis(axes.xaxis)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2, handletextpad=0.2)


def pooling(result: dict, about: dict) -> Figure:
    """Draw what each place to read is worth."""
    rows = result["ways"]
    figure, axes = canvas(1.4 + 0.5 * len(rows))
    dots(axes, [row["title"] for row in rows.values()], [*rows.values()], result["chance"])
    title(figure, result)
    return figure


def heat(axes, values: list, columns: list, low: float, high: float) -> None:
    """Draw numbers by layer, the lowest below, and column: in colour, and in percent."""
    axes.pcolormesh(values, cmap=PALE, vmin=low, vmax=high, edgecolors="face", linewidth=0.2)
    for layer, row in enumerate(values):
        for i, value in enumerate(row):
            dark = (value - low) / (high - low) > 0.45
            axes.text(
                i + 0.5, layer + 0.5, str(round(100 * value)), ha="center", va="center_baseline",
                fontsize=8.5, color=ON_DARK if dark else ON_PALE,
            )  # fmt: skip
    axes.set_xticks([i + 0.5 for i in range(len(columns))], columns, fontsize=9.5)
    axes.set_yticks([i + 0.5 for i in range(len(values))], range(len(values)))
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def where(result: dict, about: dict) -> Figure:
    """Draw how much can be read at each layer and position: those from the start, from the end."""
    starts, ends = result["starts"], result["ends"][::-1]
    layers = len(result["from_end"])
    widths = {"width_ratios": [len(starts), len(ends)]}
    figure, (left, right) = canvas(1.5 + 0.32 * layers, columns=2, sharey=True, gridspec_kw=widths)
    cells = [value for part in ("from_start", "from_end") for row in result[part] for value in row]
    scale = result["chance"], max(*cells, result["chance"] + 0.05)
    heat(left, result["from_start"], starts, *scale)
    heat(right, [row[::-1] for row in result["from_end"]], [str(n) for n in ends], *scale)
    left.set(ylabel="layer (0: the embeddings)", xlabel="tokens from the start")
    right.set_xlabel("tokens from the end; -1 is the last")
    said = f"texts right, in percent; chance is {100 * result['chance']:.0f}, and palest"
    right.set_title(said, loc="right", fontsize=9.5)
    title(figure, result)
    return figure


def controls(result: dict, about: dict) -> Figure:
    """Draw what the same probe makes of less."""
    rows = result["rows"]
    figure, axes = canvas(1.4 + 0.5 * len(rows))
    dots(axes, [row["title"] for row in rows.values()], [*rows.values()], result["chance"])
    title(figure, result)
    return figure


def line(axes, x: list, rows: list[dict], colour: str, mark: str, label: str, interval="interval"):
    """Draw accuracies over x, joined, with intervals."""
    y = [row["accuracy"] for row in rows]
    low, high = zip(*(row.get(interval, (row["accuracy"],) * 2) for row in rows), strict=True)
    axes.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)
    axes.plot(x, y, mark + "-", color=colour, ms=6.5, lw=1.8, label=label)


def compare(axes, value: float, said: str, x: float = 0.99) -> None:
    """Draw a dashed line, saying what it is."""
    axes.axhline(value, color=INK, ls=DASHES, lw=1)
    axes.annotate(
        said, (x, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=9.5
    )


def knock_out(result: dict, about: dict) -> Figure:
    """Draw what is left when the last token's attention is cut, by block and by distance."""
    figure, (left, right) = canvas(
        4.1, columns=2, sharey=True, gridspec_kw={"width_ratios": [3, 2]}
    )
    kinds = {}
    for row in result["rows"].values():
        kinds.setdefault(row["kind"], []).append(row)
    for kind, colour, mark, label in (
        ("only", GREEN, "s", "cut in this block only"),
        ("from", BLUE, "o", "cut in this block and all above"),
        ("up_to", ORANGE, "D", "cut in this block and all below"),
    ):
        line(left, [row["at"] for row in kinds[kind]], kinds[kind], colour, mark, label)
    left.set(xlabel="block", xticks=[row["at"] for row in kinds["only"]])
    left.legend(loc="lower center", bbox_to_anchor=(0.45, 0.08), fontsize=9.5)
    windows = kinds["window"]
    whole = {**result["rows"]["nothing_0"], "at": 2 * windows[-1]["at"]}
    line(right, [r["at"] for r in [*windows, whole]], [*windows, whole], RED, "o", "")
    right.set_xscale("log", base=2)
    right.set_xticks([r["at"] for r in [*windows, whole]], [*(r["at"] for r in windows), "all"])
    right.minorticks_off()
    right.set_xlabel("how many of the last tokens it sees")
    compare(left, result["chance"], "chance")
    compare(right, result["chance"], "chance")
    percent_axis(left.yaxis)
    left.set_ylabel("test texts right")
    title(figure, result)
    return figure


def patching(result: dict, about: dict) -> Figure:
    """Draw how far a twin's vector, in place of a text's own, moves the score to the twin's."""
    figure, axes = canvas(1.5 + 0.32 * len(result["moved"]))
    heat(axes, result["moved"], [str(place) for place in result["places"]], 0.0, 1.0)
    axes.set(ylabel="layer (0: the embeddings)", xlabel="which token's vector, from the end")
    said = "how far the score goes over to the twin's, in percent; without effect: 0"
    axes.set_title(said, loc="right", fontsize=9.5)
    title(figure, result)
    return figure


def words(result: dict, about: dict) -> Figure:
    """Draw what the language model's own expectation is worth after each template."""
    rows = result["templates"]
    names = [f"{name} (chosen)" if name == result["chosen"] else name for name in rows]
    figure, axes = canvas(1.4 + 0.45 * len(rows))
    dots(axes, names, [*rows.values()], result["chance"])
    title(figure, result)
    return figure


def ladder(result: dict, about: dict) -> Figure:
    """Draw accuracy over the numbers that learn, and over the number of labelled texts."""
    figure, (top, below) = canvas(8.4, rows=2, gridspec_kw={"height_ratios": [3, 2]})
    rungs, x = sorted(result["rungs"].values(), key=lambda row: row["learning"]), 0.0
    top.set_xscale("log")
    for row in rungs:
        x = max(row["learning"], 1.3 * x)  # side by side, if as many learn
        colour, (low, high) = RED if row["flags"] == "--freeze-trunk" else BLUE, row["interval"]
        top.vlines(x, low, high, colour, lw=2)
        top.plot(x, row["accuracy"], "o", color=colour, ms=8)
        top.annotate(
            row["title"], (x, low), (0, -6), textcoords="offset points", rotation=90,
            ha="center", va="top", fontsize=10,
        )  # fmt: skip
    top.set(xlabel="numbers that learn", ylabel="test texts right")
    top.margins(x=0.08, y=0.06)
    compare(top, result["chance"], "chance")
    title(figure, result)
    for (key, points), colour, mark in zip(
        result["curves"].items(), (RED, BLUE, GREEN), "oDs", strict=False
    ):
        x = [point["texts"] for point in points]
        line(below, x, points, colour, mark, result["rungs"][key]["title"], "range")
    below.set_xscale("log")
    below.set_xticks(x, x)
    below.minorticks_off()
    texts = f"labelled texts to learn from, besides those of dev ({result['dev']})"
    below.set(xlabel=texts, ylabel="test texts right")
    below.legend(loc="lower right", bbox_to_anchor=(1, 0.12))
    compare(below, result["chance"], "chance")
    for axes in (top, below):
        percent_axis(axes.yaxis)
    return figure


PLOTS = {
    "pooling": pooling,
    "where": where,
    "controls": controls,
    "knock-out": knock_out,
    "patching": patching,
    "words": words,
    "ladder": ladder,
    "reading": reading,
}


def draw(name: str, result: dict, about: dict) -> Figure:
    """Draw an experiment's figure; matplotlib looks up the style at each line and each text."""
    with in_style():
        return PLOTS[name](result, about)
