"""The figure of `reading`: texts word by word, in the colour of the verdict so far."""

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle

from minigpt.explain.style import BLUE, INK, ORANGE, canvas


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
