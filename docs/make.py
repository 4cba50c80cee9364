"""Make docs/: run `explain` on the bundled weights and texts, and fill the page's template.

    python docs/make.py [--only-text | --tour]

Writes results.json, figures/ and why-the-last-token.md. With --only-text, the page is made of the
results that are there. A section about an experiment that was skipped is left out.

--tour does something else: it runs tour.ipynb where it stands, and writes tour.md, which is the
same to read. The notebook is edited by hand; its outputs and tour.md are not.
"""

import json
import os
import re
import shutil
import string
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read as torch loads: threads that wait sleep
from minigpt.cli.program import errors_for_people
from minigpt.explain.run import explain

DOCS = Path(__file__).parent


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


def main():
    """Run explain, keep its results and figures, and fill the page; or make the tour."""
    if sys.argv[1:] == ["--tour"]:
        make_tour()
        return
    if sys.argv[1:] != ["--only-text"]:
        with tempfile.TemporaryDirectory() as folder:
            explain(["--weights", "tiny", "--data", "mirrored", "--out", folder])
            results = json.loads(Path(folder, "results.json").read_text())
            results["about"]["command"] = "python docs/make.py"
            results["experiments"]["reading"].pop("sentences")  # long, and nothing the page quotes
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
