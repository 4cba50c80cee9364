"""Who may import whom: the core imports no package, and packages only what is named here."""

import ast
from pathlib import Path

import pytest
from conftest import ROOT

EDGE = {"core", "edge"}
PACKAGES = {
    "edge": {"core"},
    "checkpoints": EDGE,
    "datasets": EDGE | {"checkpoints"},  # downloads
    "parallel": EDGE,
    "peft": EDGE,
    "language": EDGE,
    "fast": EDGE | {"checkpoints", "parallel"},  # a frozen pass in several processes
    "runs": EDGE | {"checkpoints", "fast", "parallel", "peft"},
    "export": EDGE | {"checkpoints", "datasets", "peft", "runs"},
    "explain": EDGE
    | {"checkpoints", "datasets", "fast", "peft", "language", "runs"}
    | {"cli"},  # the flags of the runs that it compares
}
EVERYTHING = {"core", "train", "cli", *PACKAGES}
MAY_IMPORT = {
    "core": set(),
    **PACKAGES,
    "cli": EVERYTHING,
    "python": EVERYTHING,  # wires together what it offers, as the commands do
    "minigpt/__init__.py": {"python"},
    "minigpt/__main__.py": {"cli"},
    "train.py": EVERYTHING,
}
FILES = [ROOT / "train.py", *sorted((ROOT / "minigpt").rglob("*.py"))]


def part_of(module: str) -> str | None:
    """Return of which part of the project a module is: a package, "core", "train", or none."""
    first, *rest = module.split(".")
    if first != "minigpt":
        return "train" if first == "train" else None
    return rest[0] if rest and (ROOT / "minigpt" / rest[0]).is_dir() else "core"


def imports_of(path: Path) -> set[tuple[int, str]]:
    """Return (line, module) of all imports, those inside functions too.

    `from minigpt import fit` imports minigpt.fit, as does importlib.import_module("minigpt.fit").
    """
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {(node.lineno, alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}, line {node.lineno}: say from where, in full"
            found |= {(node.lineno, f"{node.module}.{alias.name}") for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found |= {
                (node.lineno, arg.value) for arg in node.args if isinstance(arg, ast.Constant)
            }
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_what_its_part_may(path):
    name = path.relative_to(ROOT).as_posix()
    own = name.split("/")[1] if name.count("/") > 1 else "core"
    allowed = MAY_IMPORT[name] if name in MAY_IMPORT else MAY_IMPORT[own] | {own}
    wrong = [
        f"line {line}: {module}"
        for line, module in sorted(imports_of(path))
        if part_of(module) not in {None, *allowed}
    ]
    assert not wrong, f"{name} must not import {', '.join(wrong)}"


def test_every_package_is_in_the_table_and_says_what_it_is_for():
    folders = {path.parent for path in (ROOT / "minigpt").rglob("*.py")}
    for folder in folders:
        text = (folder / "__init__.py").read_text(encoding="utf-8")
        assert ast.get_docstring(ast.parse(text)), f"{folder}/__init__.py has no docstring"
    packages = {folder.name for folder in folders if folder.parent.name == "minigpt"}
    assert packages == {name for name in MAY_IMPORT.keys() - {"core"} if not name.endswith(".py")}


def test_the_table_has_no_circles_but_that_of_explain_and_cli():
    order = list(PACKAGES)
    for package, allowed in PACKAGES.items():
        later = {*order[order.index(package) :], "cli"} & allowed
        assert later <= ({"cli"} if package == "explain" else set()), (package, later)
