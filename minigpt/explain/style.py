"""One style for all figures, and how they become files. Knows nothing of what they show."""

import contextlib
import io
import warnings
from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

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


# From what is hardly there to what is plain; the writing on it is of no theme, as it is not
PALE = LinearSegmentedColormap.from_list("pale", ["#eef4f9", "#9ecae8", BLUE, "#08306b"])
ON_PALE, ON_DARK = "#111111", "#ffffff"


@contextlib.contextmanager
def in_style():
    """Draw in the style of all figures; what the font has no sign for is a box, without a word."""
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        yield


def canvas(height: float, rows: int = 1, columns: int = 1, **how):
    """Return a figure 8 inches wide, 800 pixels in a README, and its axes."""
    figure = Figure(figsize=(8, height), layout="constrained")
    FigureCanvasAgg(figure)  # no window, whatever the machine has
    return figure, figure.subplots(rows, columns, **how)


def svg(figure: Figure) -> str:
    """Return a figure as an <svg> element: the same text each time."""
    file = io.StringIO()
    with in_style():
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    text = file.getvalue()
    return text[text.index("<svg") :]


def save(figure: Figure, path: Path) -> None:
    """Write `path`.png, on white, and `path`.svg, without a background."""
    path.with_suffix(".svg").write_text(svg(figure), encoding="utf-8")
    with in_style():
        meta = {"Software": None}
        figure.savefig(path.with_suffix(".png"), dpi=160, facecolor="white", metadata=meta)
