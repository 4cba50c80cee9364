"""What the figures promise a reader: that numbers can be read, and points are where they belong."""

import numpy as np
import pytest

from minigpt.explain import figures
from minigpt.explain.ladder import draw_rungs
from minigpt.explain.where import IN_TABLE


def luminance(colour) -> float:  # as WCAG 2 defines it
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(one, other) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_numbers_on_a_heat_map_have_contrast():
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    scale = LinearSegmentedColormap.from_list("sequence", figures.SEQUENCE)
    for share in np.linspace(0, 1, 101):
        colour = scale(share)
        assert contrast(to_rgb(figures.ink_on(colour[:3])), colour) >= 4.5


@pytest.mark.parametrize("paper, ink", [("#ffffff", figures.INK), ("#171614", "#ebe6de")])
def test_words_in_the_colours_of_predictions_have_contrast(paper, ink):
    from matplotlib.colors import to_rgb

    for colour in (figures.BLUE, figures.ORANGE, "#4a9fd8"):  # the last: blue on a dark page
        mixed = 0.5 * np.array(to_rgb(colour)) + 0.5 * np.array(to_rgb(paper))
        assert contrast(mixed, to_rgb(ink)) >= 4.5


def test_the_ladder_moves_no_point_off_its_place():
    sizes = [512, 49664, 49664, 50000, 6902272, 6902272]
    rungs = [
        {"learning": n, "accuracy": 0.8, "interval": [0.7, 0.9], "title": f"rung {i}", "flags": ""}
        for i, n in enumerate(sizes)
    ]
    _, axes = figures.canvas(4)
    draw_rungs(axes, rungs)
    assert [line.get_xdata()[0] for line in axes.lines] == sizes
    names = [text.get_text() for text in axes.texts]
    assert names == ["rung 0", "rung 1", "◇ rung 2", "rung 3", "rung 4", "◇ rung 5"]


def test_the_table_of_where_runs_as_its_figure():
    starts, ends = [p for p in IN_TABLE if p >= 0], [p for p in IN_TABLE if p < 0]
    assert [*IN_TABLE] == sorted(starts) + sorted(ends)
