"""The page in docs/ says what docs/results.json has, and shows what is there."""

import html
import importlib.util
import json
import re
from pathlib import Path

import pytest
from conftest import ROOT

from minigpt.explain.run import EXPERIMENTS

DOCS = ROOT / "docs"
RESULTS = json.loads((DOCS / "results.json").read_text(encoding="utf-8"))
PAGE = (DOCS / "why-the-last-token.md").read_text(encoding="utf-8")
METHODS = json.loads((DOCS / "methods.json").read_text(encoding="utf-8"))
TEMPLATE = (DOCS / "why-the-last-token.template.md").read_text(encoding="utf-8")


def load(path: str):
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_number_of_the_page_is_that_of_the_results():
    assert load("docs/make.py").fill(TEMPLATE, RESULTS) == PAGE
    assert [*RESULTS["experiments"]] == [*EXPERIMENTS]


def test_the_readme_has_the_same_accuracies_for_the_same_things():
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace(" %", "%")
    readme = " ".join(readme.split())
    ways, rows = (
        RESULTS["experiments"][n][k] for n, k in (("pooling", "ways"), ("controls", "rows"))
    )
    last, first = (
        METHODS["data"]["mirrored"][f"a head, at the {n} token"] for n in ("last", "first")
    )
    assert last["seeds"]["0"]["test"] == pytest.approx(ways["last"]["accuracy"])
    assert first["seeds"]["0"]["test"] == pytest.approx(ways["first"]["accuracy"])
    assert f"the last token gives {rows['random']['accuracy']:.1%} (" in readme
    assert f"by itself gives {rows['length']['accuracy']:.1%})" in readme
    assert f"test accuracy {ways['last']['accuracy']:.1%} (" in readme


def test_the_tables_of_methods_are_what_the_command_printed():
    methods = load("benchmarks/methods.py")
    for page, titles, ranges in (
        ("README.md", [methods.COUNTING, *methods.MAIN], False),
        ("docs/tuning.md", [methods.COUNTING, *methods.MAIN, *methods.OTHERS], True),
    ):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert methods.table(METHODS, titles, ranges) in text, page


def test_another_result_is_another_page():
    other = json.loads(json.dumps(RESULTS))
    other["experiments"]["pooling"]["ways"]["last"]["accuracy"] = 0.123
    assert "**12.3 %**" in load("docs/make.py").fill(TEMPLATE, other)


def test_a_section_about_what_was_skipped_is_left_out():
    other = json.loads(json.dumps(RESULTS))
    other["experiments"]["words"] = {"question": "Whether?", "skipped": "no ratings"}
    page = load("docs/make.py").fill(TEMPLATE, other)
    assert "## Without any training on labels" not in page and "figures/words.png" not in page
    assert "## Where it is" in page and "## What is true in which case" in page


def test_percentages_of_ours_are_placeholders():
    """A figure typed by hand would stay when the results change: only other people's are."""
    ours = TEMPLATE[: TEMPLATE.index("## What others measured")]
    typed = re.findall(r"\d[\d.,]* %", re.sub(r"\{.*?\}", "", ours))
    assert {*typed} <= {"50 %", "95 %", "100 %"}  # chance and all, by construction; intervals


def test_figures_are_there():
    shown = re.findall(r"!\[.+?\]\((.+?)\)", PAGE)
    drawn = {name for name, result in RESULTS["experiments"].items() if "skipped" not in result}
    assert {f"figures/{name}.png" for name in drawn} | {"figures/last-vector.svg"} == {*shown}
    assert all((DOCS / path).is_file() for path in shown)


def test_the_page_is_one_small_file_of_the_same_results():
    path = DOCS / "index.html"
    page = html.unescape(path.read_text(encoding="utf-8"))
    assert path.stat().st_size < 25e6
    assert not re.search(r"(?:src|href)=[\"']?https?:[^\"'>]+\.(?:js|css|png)", page)
    for result in RESULTS["experiments"].values():
        assert result["headline"].replace(" %", "\N{NO-BREAK SPACE}%") in page


def test_every_row_about_checkpoints_names_tests_that_there_are():
    page = (DOCS / "checkpoints.md").read_text(encoding="utf-8")
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in page.splitlines() if line[:2] == "| "]
    rows = [row for row in rows if row[-1].strip() != "test"]
    folders = ROOT / "tests" / "checkpoints", ROOT / "tests" / "export"
    code = "".join(p.read_text(encoding="utf-8") for f in folders for p in f.glob("test_*.py"))
    assert len(rows) > 30
    for row in rows:
        names = re.findall(r"`([^`]+)`", row[-1])
        assert len(row) == 3 and names, row
        for name in names:
            there = f"def {name}(" if name.startswith("test_") else f'    "{name}": ('
            assert there in code, name
