"""results.json and its figures -> index.html: one page that needs nothing else.

Texts may contain anything, so all of them are escaped; and a Content-Security-Policy tells the
browser what the page may do: load nothing from the network, and run no script but its own, which is
identified by its hash, and the worker that this one makes. Knows nothing of models: a trunk is what
page.js hands to the worker.
"""

import base64
import hashlib
import html
import json
import re
from pathlib import Path
from string import Template

from minigpt.explain.figures import BLUE, GRID, INK, PHONE

# Experiments whose headlines are the answer
SHORT = ("pooling", "controls", "knock-out", "heads", "words", "ladder", "arrival")
LONG = 12  # a table of more rows than this is folded
TWINS = {  # what to know of a data set
    "mirrored": "<p><strong>mirrored</strong> is short reviews in pairs. The two texts of a pair, "
    "each the other’s <em>twin</em>, have opposite ratings and end with the same token: by itself, "
    "their last token tells nothing of the rating.</p>"
}
NO_TRUNK = "it was made without the trunk"  # why a page has no box to type in


def write_page(
    results: dict, figures: dict[str, str], path: Path, trunk: dict | str = NO_TRUNK
) -> None:
    """Write the page of the results; `figures` has an SVG file's text for each experiment drawn.

    `trunk` is what in_browser.py makes: the trunk, with which the page reads texts that are typed,
    or why it cannot.
    """
    path.write_text(page_of(results, figures, trunk), encoding="utf-8", newline="\n")


def page_of(results: dict, figures: dict[str, str], trunk: dict | str = NO_TRUNK) -> str:
    """Return the page as HTML."""
    template, style, script = map(part, ("page.html", "page.css", "page.js"))
    about, experiments = results["about"], results["experiments"]
    weights, data = about["weights"], about["data"]
    read = experiments.get("reading", {})
    sentences = read.get("sentences", [])
    reading = {"labels": data["labels"], "heads": weights["heads"], "sentences": sentences}
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Template(template).substitute(
        script_hash=f"sha256-{digest}",
        style=style,
        script=script,
        weights=escaped(weights["name"]),
        size=f"{weights['parameters']:,} parameters in {weights['layers']} blocks",
        data=escaped(data["name"]),
        short=short_answer(experiments),
        twins=TWINS.get(data["name"], ""),
        room="" if sentences else "hidden",
        boxes="" if isinstance(trunk, dict) else "hidden",
        why_not=why_not(trunk),
        contents=contents(experiments, bool(sentences)),
        experiments="".join(
            section(i, name, result, figures.get(name))
            for i, (name, result) in enumerate(experiments.items(), 1)
        ),
        about=about_rows(about),
        reading=json_in_html(reading),
        worker=worker(trunk, read) if sentences else "",
    )


def part(name: str) -> str:
    """Return one of the files beside this one."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def why_not(trunk: dict | str) -> str:
    """Return why there are no boxes to type in, if so."""
    if isinstance(trunk, dict):
        return ""
    return f'<p class="note">There is no box to type a text of your own into: {escaped(trunk)}.</p>'


def worker(trunk: dict | str, read: dict) -> str:
    """Return what page.js makes the worker of: the trunk with its probes, and the worker's code."""
    if isinstance(trunk, str):
        return ""
    numbers = json_in_html(trunk | {"probes": read["probes"], "head": read["head"]})
    code = part("gpt2.js") + part("worker.js")
    return (
        f'<script type="application/json" id="trunk">{numbers}</script>\n'
        f'<script type="text/plain" id="worker">{code}</script>\n'
    )


def possible(text: str) -> str:
    """Return a text with U+FFFD in place of what HTML or UTF-8 cannot contain."""
    return re.sub(r"[\0-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", text)


def escaped(text) -> str:
    """Return a text as HTML; no line breaks between a number and its sign."""
    return html.escape(possible(str(text)).replace(" %", "\u00a0%"))


def json_in_html(value) -> str:
    """Return JSON for a <script>: without `<`, so that nothing in it can end the script."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def short_answer(experiments: dict) -> str:
    """Return the answer in a few lines, each from an experiment and with a link to it."""
    lines = [
        f'<li>{escaped(experiments[name]["headline"])}. <a href="#{name}">{name}</a></li>\n'
        for name in SHORT
        if "headline" in experiments.get(name, {})
    ]
    if not lines:
        return ""
    return f'<div class="short">\n<h2>In short</h2>\n<ul>\n{"".join(lines)}</ul>\n</div>'


def contents(experiments: dict, room: bool) -> str:
    """Return the links to the experiments."""
    first = '<li><a href="#room">Watch it read</a></li>\n' if room else ""
    return first + "".join(
        f'<li><a href="#{escaped(name)}">{escaped(name.capitalize())}</a></li>\n'
        for name in experiments
    )


def section(number: int, name: str, result: dict, figure: str | None) -> str:
    """Return an experiment: its question, finding, figure and numbers."""
    anchor = escaped(name)
    parts = [
        f'<section id="{anchor}" class="experiment" aria-labelledby="{anchor}-title">',
        f'<p class="number">{number} · {anchor}</p>',
        f'<h2 id="{anchor}-title">{escaped(result["question"])}</h2>',
    ]
    if "skipped" in result:
        parts.append(f'<p class="skipped">Not run: {escaped(result["skipped"])}</p>')
    else:
        parts.append(f'<p class="finding">{escaped(result["finding"])}</p>')
        if figure:
            parts.append(figure_in_html(figure, name))
        parts.append(table_in_html(result["table"], name))
    return "\n".join(parts) + "\n</section>\n\n"


def table_in_html(numbers: dict, name: str) -> str:
    """Return the numbers of an experiment; many of them are folded."""
    head = "".join(f'<th scope="col">{escaped(column)}</th>' for column in numbers["columns"])
    rows = []
    for first, *rest in numbers["rows"]:
        cells = "".join(f"<td>{cell(value)}</td>" for value in rest)
        rows.append(f'<tr><th scope="row">{cell(first)}</th>{cells}</tr>\n')
    label = escaped(f"The numbers of {name}")
    whole = (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{label}">\n<table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{''.join(rows)}</tbody>\n</table>\n</div>"
    )
    if len(rows) <= LONG:
        return whole
    return f"<details>\n<summary>{len(rows)} rows of numbers</summary>\n{whole}\n</details>"


def cell(value) -> str:
    return "–" if value is None else escaped(value)


def figure_in_html(svg: str, name: str) -> str:
    """Return a figure; a wide one is scrolled on a phone, whose window it would not fit."""
    width = float(re.search(r'viewBox="0 0 ([\d.]+)', svg)[1])  # in points
    wide = ' class="wide" tabindex="0"' if width > 72 * PHONE else ""
    label = escaped(f"The figure of {name}")
    return f'<figure{wide} aria-label="{label}">\n{svg_in_html(svg, name)}\n</figure>'


def svg_in_html(svg: str, name: str) -> str:
    """Return an SVG file as a part of a page, in the page's ink.

    A page has one name space for ids, and one for style sheets: ids get the experiment's name, and
    the figure's own style sheet is dropped (page.css has its one line).
    """
    svg = possible(svg[svg.index("<svg") :])
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = svg.replace(INK, "currentColor").replace(GRID, "var(--line)")
    svg = svg.replace(BLUE.lower(), "var(--blue)")  # too dark for a dark page
    size = re.match(r"<svg[^>]*>", svg)[0]
    sizeless = re.sub(r'\s(width|height|xmlns(:xlink)?|version)="[^"]*"', "", size)
    label = f"The figure of {name}: its numbers are in the table below"
    return svg.replace(size, f'<svg role="img" aria-label="{escaped(label)}"{sizeless[4:]}', 1)


def about_rows(about: dict) -> str:
    """Return what the results depend on, as the rows of a <dl>."""
    weights, data = about["weights"], about["data"]
    texts = ", ".join(f"{data[split]:,} {split}" for split in ("train", "dev", "test"))
    rows = {
        "command": f"<code>{escaped(about['command'])}</code>",
        "weights": f"{escaped(weights['name'])}, sha256 <code>{escaped(weights['sha256'])}</code>",
        "data": escaped(f"{data['name']}: {texts}; {' or '.join(data['labels'])}"),
        "cut": escaped(
            f"{data.get('truncated', 0)} texts, at the context: their last token is not the text's"
        ),
        "seed": escaped(about["seed"]),
        "ran on": escaped(f"{about['device']}, threads: {about['threads']}"),
        "versions": escaped(", ".join(f"{n} {v}" for n, v in about["versions"].items())),
        "took": f"{about['seconds']:.0f} s",
    }
    if not data.get("truncated"):
        rows.pop("cut")
    return "".join(f"<dt>{name}</dt><dd>{value}</dd>\n" for name, value in rows.items())
