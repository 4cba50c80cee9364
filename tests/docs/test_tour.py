"""docs/tour.ipynb runs from top to bottom, and shows what its text says; tour.md is the same.

Numbers are those of the bundled weights: with others, `python docs/make.py --tour` makes both anew.
"""

import json
import re

import pytest
from conftest import ROOT
from test_docs import load

FILE = ROOT / "docs/tour.ipynb"
NOTEBOOK = json.loads(FILE.read_text(encoding="utf-8"))
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
TEXT = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "markdown"]

EXACT = {"trunk", "ids", "embeddings", "norm", "qkv", "output", "last", "vectors", "frozen"}
EXACT |= {"last-block", "lora-on"}
PRAISE = {"wonderful", "beautiful", "excellent", "superb", "terrific", "great", "fantastic"}


def printed(cells) -> dict[str, str]:
    """Return what each cell prints, by its id."""
    return {
        cell["id"]: "".join("".join(output["text"]) for output in cell["outputs"]) for cell in cells
    }


def numbers(pattern: str, text: str) -> list[float]:
    return [float(number) for number in re.findall(pattern, text)]


def test_it_runs_and_shows_what_its_text_says(monkeypatch):
    for package in ("nbclient", "ipykernel"):
        pytest.importorskip(package, reason=f"{package}, of the extra `test`, runs the notebook")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # no network
    notebook = load("docs/make.py").run_notebook(FILE)  # raises what a cell raises
    shown = printed(cell for cell in notebook.cells if cell.cell_type == "code")
    committed = printed(CODE)
    assert shown.keys() == committed.keys()
    assert {name: shown[name] for name in EXACT} == {name: committed[name] for name in EXACT}

    for name in ("embeddings", "norm", "output", "last"):
        assert shown[name].endswith(": True\n"), name
    for row in shown["weights"].splitlines():  # shares, rounded
        assert sum(numbers(r"\s(\d+)", row)) == pytest.approx(100, abs=5)

    # The rating is at the last token after one block, and not in its embedding
    right, texts = numbers(r"[\d.]+\b", shown["accuracy"])
    before, _ = numbers(r"[\d.]+\b", committed["accuracy"])
    assert texts == 400 and right > 65 and abs(right - before) < 3
    embedding, *blocks = numbers(r"([\d.]+)%", shown["layers"])
    assert abs(embedding - 50) < 6 and min(blocks) > embedding + 10
    assert blocks[-1] == right

    # The two sentences part at the fourth token, of ten, and stay apart
    gaps = numbers(r"-?\d+\.\d", shown["exchange"])
    assert gaps[:3] == [0, 0, 0] and len(gaps) == 10 and all(gaps[3:])
    wonderful, terrible = numbers(r"(\d+)%", shown["verdict"])
    assert terrible < 50 < wonderful
    likelier, less_so = shown["go-on"].splitlines()
    assert len(PRAISE & {*likelier.split()[3:]}) >= 2 and not PRAISE & {*less_so.split()[3:]}

    # Three steps: the loss falls, from the same start; what is frozen stays as it is
    assert shown["frozen"].startswith("changed: {'score.weight'}\n")
    losses = [numbers(r"loss ([\d.]+)", shown[name]) for name in ("loop", "lora-steps")]
    assert losses[0][0] == losses[1][0]
    assert all(first > second > third for first, second, third in losses)
    for name in ("loop", "lora-steps"):
        assert "what changed is what is trained: True\n" in shown[name]
    assert shown["lora-on"].endswith("at first the same: True\n")
    assert shown["lora-steps"].endswith("still the same: False\n")


def test_the_page_is_the_notebook():
    page = (ROOT / "docs/tour.md").read_text(encoding="utf-8")
    assert page == load("docs/make.py").markdown_of(NOTEBOOK)


def test_the_notebook_is_small_and_has_nothing_of_one_run():
    assert FILE.stat().st_size < 300_000
    assert NOTEBOOK["metadata"]["language_info"] == {"name": "python"}
    assert [cell["execution_count"] for cell in CODE] == [*range(1, len(CODE) + 1)]
    assert not any(cell["metadata"] for cell in NOTEBOOK["cells"])
    assert all(re.fullmatch(r"[a-z-]+", cell["id"]) for cell in NOTEBOOK["cells"])


def test_cells_are_short_and_the_text_quotes_no_result():
    assert max(len(cell["source"]) for cell in CODE) <= 14
    assert not re.findall(r"\d[\d.,]* ?%", "".join("".join(cell["source"]) for cell in TEXT))
