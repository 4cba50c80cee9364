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


def test_the_ladder_has_a_row_for_each_rung_and_each_point_in_its_place():
    rungs = [
        {"learning": n, "accuracy": share, "interval": [0.5, 0.9], "title": "a rung", "flags": ""}
        for n, share in ((512, 0.7), (49664, 0.75), (49664, 0.6))  # two of the same size
    ]
    _, axes = figures.canvas(4)
    draw_rungs(axes, rungs)
    points = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines]
    assert points == [(0.7, 0), (0.75, 1), (0.6, 2)]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[1] == names[2] == "a rung\n49,664 parameters"


def test_the_table_of_where_runs_as_its_figure():
    starts, ends = [p for p in IN_TABLE if p >= 0], [p for p in IN_TABLE if p < 0]
    assert [*IN_TABLE] == sorted(starts) + sorted(ends)
