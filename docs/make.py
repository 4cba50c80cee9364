"""Make docs/: run `explain` on the bundled weights and texts, and fill the page's template.

    python docs/make.py [--only-text | --tour]

Writes results.json, figures/, why-the-last-token.md and index.html, the page that `explain` makes,
with a picture of it where Chromium and selenium are installed. With --only-text, only
why-the-last-token.md is written, of the results that are there. A section about an experiment that
was skipped is left out.

--tour does something else: it runs tour.ipynb where it stands, and writes tour.md, which is the
same to read. The notebook is edited by hand; its outputs and tour.md are not.
"""

import base64
import html
import importlib.util
import json
import os
import re
import shutil
import string
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the commands do
from minigpt.cli.program import errors_for_people
from minigpt.explain.run import explain

DOCS = Path(__file__).parent
COMMAND = "python docs/make.py"
FROM_BOXES_TO_NUMBERS = """
  document.activeElement.blur();
  const place = (part) => document.querySelector(part).getBoundingClientRect();
  const [{ top, left, width }, { bottom }] = ["#boxes", ".told"].map(place);
  const y = top + scrollY - 16;
  return { x: left - 16, y, width: width + 32, height: bottom + scrollY + 16 - y, scale: 2 };"""
TYPED = [f"The acting is {word}, and so is the music." for word in ("superb", "awful")]


class Figures(string.Formatter):
    """`str.format`, but for the space between a number and its percent sign."""

    def format_field(self, value, spec):
        text = super().format_field(value, spec)
        return text.replace("%", " %") if spec.endswith("%") else text


def fill(template: str, results: dict) -> str:
    """Put numbers in place of names such as {pooling.ways.last.accuracy:.1%}."""
    sections = re.split(r"(?m)^(?=## )", template)
    for name, result in results["experiments"].items():
        if "skipped" in result:
            sections = [section for section in sections if f"figures/{name}.png" not in section]
    text = json.dumps({"about": results["about"]} | results["experiments"])
    values = json.loads(text, object_hook=lambda table: SimpleNamespace(**table))
    return Figures().vformat("".join(sections), (), vars(values))


def run_notebook(path: Path):  # -> nbformat.NotebookNode
    """Run a notebook from top to bottom, with this Python and this minigpt; return it run.

    It has nothing that differs from one run to the next, such as times.
    """
    import nbclient  # of the extra `test`
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    here = os.pathsep.join([str(DOCS.parent), os.environ.get("PYTHONPATH", "")])
    nbclient.NotebookClient(
        notebook,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(DOCS)}},
    ).execute(env=os.environ | {"PYTHONPATH": here})
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def markdown_of(notebook) -> str:
    """Return a notebook as a page: text, code in fences, and what each cell prints in fences."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        printed = "".join("".join(output["text"]) for output in cell["outputs"]).rstrip()
        if printed:
            parts.append(f"```text\n{printed}\n```")
    return "\n\n".join(parts) + "\n"


def make_tour():
    """Run tour.ipynb, keep its outputs, and write tour.md."""
    import nbformat

    notebook = run_notebook(DOCS / "tour.ipynb")
    nbformat.write(notebook, DOCS / "tour.ipynb")
    (DOCS / "tour.md").write_text(markdown_of(notebook), encoding="utf-8")


def page_for_docs(page: str, command: str) -> str:
    """Return the page that `explain` wrote as one that lies in docs/, made by `make docs`."""
    page = page.replace(html.escape(command), COMMAND)
    name = "docs/why-the-last-token.md"
    return page.replace(f"<code>{name}</code>", f'<a href="{Path(name).name}">{name}</a>')


def take_picture(page: Path, path: Path) -> None:
    """Save what the page shows of two texts that are typed, if there is a browser to show it."""
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if not (all(programs) and importlib.util.find_spec("selenium")):
        print("no picture of the page: that needs selenium, chromium and chromedriver")
        return
    from selenium import webdriver
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for flag in ("--headless=new", "--no-sandbox", "--hide-scrollbars", "--window-size=800,900"):
        options.add_argument(flag)
    with webdriver.Chrome(options, webdriver.ChromeService(programs[1])) as browser:
        browser.get(page.resolve().as_uri())
        for i, text in enumerate(TYPED):
            box = browser.find_element(By.ID, f"box-{i}")
            box.clear()
            box.send_keys(text)
        for name, shown in (("parting", "Up to “is”"), ("next-token", "%")):  # the last to come
            WebDriverWait(browser, 60).until(
                lambda _, name=name, shown=shown: shown in browser.find_element(By.ID, name).text
            )
        clip = browser.execute_script(FROM_BOXES_TO_NUMBERS)
        picture = browser.execute_cdp_cmd(
            "Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True}
        )
        path.write_bytes(base64.b64decode(picture["data"]))


def main():
    """Run explain, keep its results and figures, and fill the page; or make the tour."""
    if sys.argv[1:] == ["--tour"]:
        make_tour()
        return
    if sys.argv[1:] != ["--only-text"]:
        with tempfile.TemporaryDirectory() as folder:
            explain(["--weights", "tiny", "--data", "mirrored", "--out", folder])
            results = json.loads(Path(folder, "results.json").read_text())
            page = Path(folder, "index.html").read_text(encoding="utf-8")
            page = page_for_docs(page, results["about"]["command"])
            (DOCS / "index.html").write_text(page, encoding="utf-8", newline="\n")
            take_picture(DOCS / "index.html", DOCS / "figures" / "page.png")
            results["about"]["command"] = COMMAND
            for name in ("sentences", "probes", "head"):  # long, and nothing that is quoted
                results["experiments"]["reading"].pop(name)
            for one in results["experiments"]["arrival"].get("sets", {}).values():
                one.pop("points")  # they are in weights/tiny/arrival.json
            text = json.dumps(results, indent=1) + "\n"
            (DOCS / "results.json").write_text(text, encoding="utf-8")
            for figure in Path(folder).glob("*.png"):
                shutil.copy(figure, DOCS / "figures")
    results = json.loads((DOCS / "results.json").read_text(encoding="utf-8"))
    template = (DOCS / "why-the-last-token.template.md").read_text(encoding="utf-8")
    page = fill(template, results)
    (DOCS / "why-the-last-token.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    with errors_for_people():
        main()
