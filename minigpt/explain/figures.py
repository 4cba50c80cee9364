"""The style of all figures, what several of them draw, and how they become files.

Knows nothing of models. matplotlib is imported where it is used: all else works without it.
"""

import contextlib
import importlib.util
import io
import textwrap
import warnings
from pathlib import Path

from minigpt.edge.errors import InputError

INK, GRID = "#24292f", "#d0d7de"  # of text and axes; of lines behind the data: of nothing else
# Okabe & Ito 2008: a palette for colour-blind readers, too
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SEQUENCE = ("#eef4f9", "#9ecae8", BLUE, "#08306b")  # of a heat map, from the lowest number
ON_LIGHT, ON_DARK = "#000000", "#ffffff"  # text on a heat map, which no theme of a page changes
PHONE = 6.4  # inches: as wide as a figure can be whose words a phone shows in a size to read
LAYERS = "layer (0: embeddings; n: after block n)"
DASHES = (0, (4, 3))
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


def require_matplotlib() -> None:
    """Raise InputError where matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError(
            "explain draws figures with matplotlib, which is not installed; install it: "
            'pip install matplotlib (or "minigpt[explain]")'
        )


@contextlib.contextmanager
def in_style():
    """Use the style of all figures; characters that the font lacks are boxes, without a warning."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        yield


def canvas(height: float, rows: int = 1, columns: int = 1, width: float = 8, **options):
    """Return a figure, as a rule 8 inches wide, 800 pixels in a README, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)  # needs no window
    return figure, figure.subplots(rows, columns, **options)


def font(size: float):
    """Return a font of one size, to measure words by."""
    from matplotlib.font_manager import FontProperties

    return FontProperties(size=size)


# --- parts of figures ---


def title(figure, result: dict) -> None:
    """Write the headline of an experiment above its figure."""
    headline = result["headline"].replace(" %", "\u00a0%")
    text = "\n".join(textwrap.wrap(headline, round(8.5 * figure.get_figwidth())))
    figure.suptitle(text, x=0.01, ha="left", weight="bold", size=13)


def percent_axis(axis) -> None:
    """Label an axis of shares in percent."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(steps=(1, 2, 5, 10)))
    axis.set_major_formatter(lambda x, _: f"{100 * x:.0f} %")


def accuracy_dots(result: dict, rows: list[dict]):
    """Draw a line for each row: its accuracy, and its pairs in order, with their intervals.

    Each row has its name above it, so that a phone shows all of it at once. A row that is a mean
    has a range instead of an interval: its line is dotted, and its name says so.
    """
    figure, axes = canvas(1.5 + 0.6 * len(rows), width=PHONE)
    series = [("accuracy", "interval", BLUE, "o", "accuracy")]
    if any("pairs" in row for row in rows):
        series.append(("pairs", "pairs_interval", ORANGE, "D", "pairs in order"))
    for s, (value, interval, colour, mark, label) in enumerate(series):
        present = [(i, row) for i, row in enumerate(rows) if value in row]
        y = [i + (s - (len(series) - 1) / 2) * 0.28 for i, _ in present]
        x = [row[value] for _, row in present]
        ranges = [f"{value}_range" in row for _, row in present]
        limits = (row.get(f"{value}_range") or row[interval] for _, row in present)
        low, high = zip(*limits, strict=True)
        axes.hlines(y, low, high, colour, lw=2, ls=[":" if one else "-" for one in ranges])
        axes.plot(x, y, mark, color=colour, ms=7, label=label)
        for share, height in zip(x, y, strict=True):
            axes.annotate(
                f"{100 * share:.1f}", (1.01, height), xycoords=("axes fraction", "data"),
                color=INK, va="center", fontsize=10, annotation_clip=False,
            )  # fmt: skip
    above = {"va": "bottom", "annotation_clip": False}
    names = [f"{r['title']} ({r['range_of']})" if "range_of" in r else r["title"] for r in rows]
    for i, name in enumerate(names):
        axes.vlines(result["chance"], i - 0.25, i + 0.3, INK, ls=DASHES, lw=1)
        axes.annotate(name, (0, i - 0.28), xycoords=("axes fraction", "data"), **above)
    axes.annotate("chance", (result["chance"], -0.7), ha="center", fontsize=9.5, **above)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_ylim(len(rows) - 0.6, -0.7)
    percent_axis(axes.xaxis)
    figure.legend(loc="outside lower center", ncols=2, handletextpad=0.2)
    title(figure, result)
    return figure


def heatmap(axes, values: list, columns: list, low: float, high: float) -> None:
    """Draw shares by layer, the first one lowest, and column: as colours, and in percent."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("sequence", SEQUENCE)
    axes.pcolormesh(values, cmap=colours, vmin=low, vmax=high, edgecolors="face", linewidth=0.2)
    for layer, row in enumerate(values):
        for i, value in enumerate(row):
            axes.text(
                i + 0.5, layer + 0.5, str(round(100 * value)), ha="center", va="center_baseline",
                fontsize=8.5, color=ink_on(colours((value - low) / (high - low))[:3]),
            )  # fmt: skip
    axes.set_xticks([i + 0.5 for i in range(len(columns))], map(str, columns), fontsize=9.5)
    axes.set_yticks([i + 0.5 for i in range(len(values))], range(len(values)))
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def ink_on(colour: tuple) -> str:  # of red, green and blue, from 0 to 1
    """Return black or white, whichever has more contrast: at least 4.58, as WCAG 2 defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    luminance = sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return ON_LIGHT if luminance > 0.179 else ON_DARK


def line(axes, x: list, rows: list[dict], colour: str, mark: str, label: str, interval="interval"):
    """Draw accuracies over x as a line, with their intervals as a band."""
    y = [row["accuracy"] for row in rows]
    low, high = zip(*(row.get(interval, (row["accuracy"],) * 2) for row in rows), strict=True)
    axes.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)
    axes.plot(x, y, mark + "-", color=colour, ms=6.5, lw=1.8, label=label)


def chance_line(axes, y: float) -> None:
    """Draw chance as a dashed line."""
    axes.axhline(y, color=INK, ls=DASHES, lw=1)
    right = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom", "fontsize": 9.5}
    axes.annotate("chance", (0.99, y), **right)


# --- files ---


def svg(figure) -> str:
    """Return a figure as an <svg> element: the same text each time."""
    file = io.StringIO()
    with in_style():
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    text = file.getvalue()
    return text[text.index("<svg") :]


def save(figure, path: Path) -> str:
    """Write `path`.png, on white, and `path`.svg, without a background; return the <svg>."""
    text = svg(figure)
    path.with_suffix(".svg").write_text(text, encoding="utf-8")
    with in_style():
        meta = {"Software": None}
        figure.savefig(path.with_suffix(".png"), dpi=160, facecolor="white", metadata=meta)
    return text
