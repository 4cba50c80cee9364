"""The figures of `explain`: one function for each experiment, one style. Draws results, knows
nothing of models.
"""

import io
from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle

INK, GRID = "#24292f", "#d0d7de"  # text and axes; lines behind the data: nothing else has these
# Okabe & Ito 2008: told apart by the colour-blind, too
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PINK, GREY = "#56B4E9", "#CC79A7", "#8c959f"
STYLE = {
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "minigpt",  # the same figure is the same file
}


def canvas(height: float, columns: int = 1, **how):
    """Return a figure 8 inches wide, 800 pixels in a README, and its axes."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, height), layout="constrained")
        FigureCanvasAgg(figure)  # no window, whatever the machine has
        return figure, figure.subplots(1, columns, **how)


def svg(figure: Figure) -> str:
    """Return a figure as an <svg> element: the same text each time."""
    file = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    text = file.getvalue()
    return text[text.index("<svg") :]


def save(figure: Figure, path: Path) -> None:
    """Write `path`.png, on white, and `path`.svg, without a background."""
    path.with_suffix(".svg").write_text(svg(figure), encoding="utf-8")
    with mpl.rc_context(STYLE):
        meta = {"Software": None}
        figure.savefig(path.with_suffix(".png"), dpi=200, facecolor="white", metadata=meta)


def percent_axis(axis) -> None:
    axis.set_major_formatter(lambda x, _: f"{100 * x:.0f} %")


def dots(axes, names: list, rows: list[dict], chance: float) -> None:
    """Draw a row for each of `names`: its accuracy, and its pairs in order, with intervals."""
    marks = [("accuracy", "interval", BLUE, "o", "texts right")]
    if all("pairs" in row for row in rows):
        marks.append(("pairs", "pairs_interval", ORANGE, "D", "pairs in order"))
    for m, (value, interval, colour, shape, label) in enumerate(marks):
        y = [i + (m - (len(marks) - 1) / 2) * 0.28 for i in range(len(rows))]
        x = [row[value] for row in rows]
        lines = [row.get(interval, (row[value], row[value])) for row in rows]
        axes.hlines(y, [low for low, _ in lines], [high for _, high in lines], colour, lw=2)
        axes.plot(x, y, shape, color=colour, ms=7, label=label)
        for value_here, where in zip(x, y, strict=True):
            axes.annotate(
                f"{100 * value_here:.1f}", (1.01, where), xycoords=("axes fraction", "data"),
                color=colour, va="center", fontsize=10, annotation_clip=False,
            )  # fmt: skip
    axes.axvline(chance, color=INK, ls=(0, (4, 3)), lw=1)
    axes.annotate("chance", (chance, -0.62), ha="center", va="bottom", fontsize=9.5)
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
    axes.set_title(result["headline"])
    return figure


def reading(result: dict, about: dict) -> Figure:
    """Draw some texts word by word, each in the colour of the verdict if the text ended there."""
    groups = {}  # twins together; first those of a kind that has not been seen yet
    for i, text in enumerate(result["sentences"]):
        groups.setdefault((text["kind"], text["pair"] or i), []).append(text)
    first = {kind: (kind, pair) for kind, pair in reversed(groups)}.values()
    shown = [groups[key] for key in sorted(groups, key=lambda key: key not in first)[:4]]

    figure, axes = canvas(1.0)
    figure.set_layout_engine("none")  # what follows is in points: 8 inches are 576
    font = FontProperties(size=11)
    renderer = figure.canvas.get_renderer()
    words, labels, y = [], [], 44
    for texts in shown:
        for text in texts:
            labels.append((y, text["label"] or ""))
            x = left = 66
            for token, p in zip(text["tokens"][:60], text["positive"][-1], strict=False):
                word = "".join(c if c.isprintable() else "◌" for c in token.strip()) or "◌"
                word = word[:40]
                width = renderer.get_text_width_height_descent(word, font, False)[0]
                width = width * 72 / figure.dpi + 4
                x += 5 if token[:1].isspace() else 1
                if x + width > 572:
                    x, y = left, y + 21
                words.append((x, y, width, word, p))
                x += width
            y += 25
        y += 14
    labels.append((y + 6, "the verdict:"))
    names = (about["data"]["labels"][0], "undecided", about["data"]["labels"][1])
    for i, (name, p) in enumerate(zip(names, (0, 0.5, 1), strict=True)):
        words.append((66 + 110 * i, y + 6, 106, name[:16], p))

    height = y + 28
    figure.set_figheight(height / 72)
    axes.set(position=(0, 0, 1, 1), xlim=(0, 576), ylim=(height, 0))
    axes.set_axis_off()
    axes.text(4, 18, result["headline"], color=INK, fontsize=13, fontweight="bold", va="center")
    for y, label in labels:
        axes.text(58, y, label[:12], color=INK, fontsize=9, ha="right", va="center")
    for x, y, width, word, p in words:
        look = {"facecolor": BLUE if p >= 0.5 else ORANGE, "alpha": 0.07 + 0.55 * abs(2 * p - 1)}
        axes.add_patch(Rectangle((x, y - 9), width, 18, linewidth=0, **look))
        where = {"ha": "center", "va": "center_baseline", "parse_math": False}
        axes.text(x + width / 2, y, word, color=INK, fontproperties=font, **where)
    return figure


PLOTS = {"pooling": pooling, "reading": reading}


def draw(name: str, result: dict, about: dict) -> Figure:
    """Draw the figure of an experiment; matplotlib asks for the style at each line and each text."""
    with mpl.rc_context(STYLE):
        return PLOTS[name](result, about)
