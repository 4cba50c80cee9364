"""README.md and docs/*.md: what one can paste runs, in order; the links and the code map are right.

Each page has a folder of its own, and its commands run there one after the other, in bash. `python`
is forked from a process that has torch loaded (python_server.py). There is no network. What takes
long is shortened by flags that are added (SHORTER); what cannot run here is listed with its reason
(NOT_RUN), and the most is tried of it that can be. A block of code that is neither commands nor
listed (SHOWN) fails, and so does a command that fails.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT

README = ROOT / "README.md"
TOUR = ROOT / "docs/tour.md"  # Python, not commands: test_tour.py runs it
# The template is the page with names in place of numbers: test_docs.py compares the two
LEFT_OUT = {"why-the-last-token.template.md", TOUR.name}
PAGES = [README, *(p for p in sorted((ROOT / "docs").glob("*.md")) if p.name not in LEFT_OUT)]
PROGRAMS = ("python", "python3", "pip", "make", "torchrun", "pytest", "coverage", "for")

# Flags added to the first that matches, unless the command's output is compared with the page.
# mirrored.tsv and sst2.tsv are small files in the page's folder: their names keep a run's name.
SMALL, SHORT = "--data mirrored.tsv", "--epochs 1 --max-length 8"
SHORTER = {
    r"^train.py .*--resume": "",  # takes no more flags
    r"^train.py .*--data reviews.csv": SHORT,
    r"^train.py .*--data sst2": f"--data sst2.tsv {SHORT} --weights tiny",
    r"^train.py .*--epochs 50": f"{SMALL} --epochs 5",
    r"^train.py .*--warm-head 20": f"{SMALL} {SHORT} --warm-head 1",
    r"^train.py --freeze-trunk --weights tiny$": "",  # the page shows what it prints
    r"^train.py": f"{SMALL} {SHORT}",
    r"^-m minigpt explain .*--only": f"{SMALL} --weights tiny",
    r"^-m minigpt explain": f"{SMALL} --weights tiny --only pooling",
    r"^benchmarks/frozen_head.py": SMALL,
}
REPLACED = {
    "for seed in 0 1 2": "for seed in 0",
    "torchrun --nproc_per_node=4 train.py": "python train.py",  # tests/parallel starts processes
    "--compile": "",  # half a minute; tests/cli compares compiled blocks with others
}

# Commands that do not run here, and why
NOT_RUN = {
    "make train": "installs, from a network",
    "make bench": "takes long, and installs, from a network",
    "make bench BENCH=--small": "takes long, and installs, from a network",
    "python3 -m venv .venv && . .venv/bin/activate": "makes an environment to install into",
    'pip install -c constraints.txt -e ".[explain]"': "installs, from a network",
    "python benchmarks/methods.py mirrored sst2 path/to/trec": "takes an hour",
    "python benchmarks/which_epoch.py mirrored sst2 path/to/trec": "takes a quarter of an hour",
    "pip install .": "tests/test_installed.py does",
    "pip install coverage": "installs, from a network",
    "coverage run -m pytest -n 2": "the suite would run itself",
    "coverage combine && coverage report -m": "needs the coverage of the line before",
    "pip install pytest-randomly pytest-repeat": "installs, from a network",
    "pytest -n 2": "the suite would run itself",
    "pytest -p no:randomly --count 2 --repeat-scope session": "the suite would run itself",
}
STOPPED = "--epochs 50"  # in a command that the page says is stopped on the way

# Blocks that are not commands: what a command prints, the code map, and Python with its answers,
# which tests/python runs
SHOWN = (">>> ", "test accuracy ", "train.py  ", "checkpoints/ ")


def blocks(page: Path) -> list[str]:
    """Return the indented and the fenced blocks of a page, in order."""
    found, fenced, block = [], False, []
    for line in [*page.read_text(encoding="utf-8").splitlines(), "end"]:
        fence = line.startswith("```")
        if fenced and not fence:
            block.append(line)
        elif not fenced and line.startswith("    "):
            block.append(line[4:])
        elif block and (fence or line.strip()):
            found.append("\n".join(block))
            block = []
        elif block:
            block.append("")
        fenced ^= fence
    return [block.rstrip() for block in found]


def commands(block: str) -> list[str]:
    """Return the commands of a block: each is as many lines as bash needs to make sense of it."""
    found, lines = [], []
    for line in block.splitlines():
        lines.append(line)
        whole = subprocess.run(["bash", "-n", "-c", "\n".join(lines)], capture_output=True)
        if whole.returncode == 0 and not line.endswith("\\") and "\n".join(lines).strip():
            found.append("\n".join(lines))
            lines = []
    assert not lines, f"bash makes nothing of {lines}"
    return found


def without_comment(command: str) -> str:
    return re.sub(r"(^|\s)#.*", "", command).strip()


def is_commands(block: str) -> bool:
    assert block.split()[0] in PROGRAMS or block.lstrip().startswith(SHOWN), (
        f"what is this?\n{block}"
    )
    return not block.lstrip().startswith(SHOWN)


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Give a folder with a program `python`, for PATH."""
    folder = tmp_path_factory.mktemp("bin")
    serve = [sys.executable, str(Path(__file__).parent / "python_server.py")]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    server = subprocess.Popen(
        [*serve, str(folder / "socket"), str(folder / "python")], env=env, stdout=subprocess.PIPE
    )
    assert server.stdout.readline() == b"ready\n"
    yield folder
    server.kill()
    server.wait()


@pytest.fixture
def shell(python, own_cache, tmp_path):
    """Start bash with a command in an empty folder, which has small files of texts."""
    mirrored = (ROOT / "minigpt/datasets/mirrored.tsv").read_text(encoding="utf-8").splitlines()
    few = [line for i, line in enumerate(mirrored[1:]) if i % 50 < 2]  # some pairs of each split
    for name in ("mirrored.tsv", "sst2.tsv"):
        (tmp_path / name).write_text("\n".join([mirrored[0], *few, ""]), encoding="utf-8")
    reviews = [
        f'"A {w} film, number {i}",{k}' for i in range(20) for w, k in (("good", 1), ("bad", 0))
    ]
    (tmp_path / "reviews.csv").write_text("\n".join(["text,label", *reviews, ""]))
    (tmp_path / "others.csv").write_text("text,label\nA good play,1\nA bad play,0\n")
    (tmp_path / "benchmarks").mkdir()
    shutil.copy(ROOT / "benchmarks" / "typed.tsv", tmp_path / "benchmarks")
    env = os.environ | {
        "PATH": f"{python}:{os.environ['PATH']}",
        "SHORTER": json.dumps(SHORTER),
        "PID_FILE": str(tmp_path / "pid"),
        "MINIGPT_CACHE": str(own_cache),
        "HF_HUB_OFFLINE": "1",  # no network
        "HF_HOME": str(tmp_path / "no-hub-cache"),
    }

    def start(command: str) -> subprocess.Popen:
        for text, other in REPLACED.items():
            command = command.replace(text, other)
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            ["bash", "-euc", command], cwd=tmp_path, env=env, text=True, **streams
        )

    return start


def stop(running: subprocess.Popen, folder: Path) -> int:
    """Stop a run of train.py as soon as it has something to go on from; return its status."""
    deadline = time.monotonic() + 60
    while not [*folder.glob("runs/tiny*/state.safetensors")] and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(int((folder / "pid").read_text()), signal.SIGTERM)
    running.communicate(timeout=60)
    return running.returncode


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_runs_in_order(page, shell, tmp_path):
    texts = blocks(page)
    for i, block in enumerate(texts):
        if not is_commands(block):
            continue
        for command in commands(block):
            if without_comment(command) in NOT_RUN:
                continue
            running = shell(command)
            if STOPPED in command:
                assert stop(running, tmp_path) == 143, command
                continue
            output, errors = running.communicate(timeout=120)
            assert running.returncode == 0, f"{command}\n{output}\n{errors}"
            shown = texts[i + 1] if i + 1 < len(texts) else ""
            if shown.startswith("test accuracy"):
                seconds = r"time .*"
                printed = re.sub(seconds, "", output[output.index("test accuracy") :]).strip()
                assert printed == re.sub(seconds, "", shown)


def test_commands_that_do_not_run_are_on_a_page_and_as_sound_as_can_be_told():
    on_pages = {
        without_comment(command)
        for page in PAGES
        for block in blocks(page)
        if is_commands(block)
        for command in commands(block)
    }
    assert NOT_RUN.keys() <= on_pages
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for command in NOT_RUN:
        for extra in re.findall(r"\.\[(\w+)\]", command):
            assert extra in extras
        for file in re.findall(r"-c (\S+)", command):
            assert (ROOT / file).is_file()
        if command.startswith("make "):
            subprocess.run(
                ["make", "-n", *command.split()[1:]], cwd=ROOT, check=True, capture_output=True
            )


def test_every_target_and_extra_that_is_named_is_there():
    makefile = (ROOT / "Makefile").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"`make (\w+)", text):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
        assert {*re.findall(r"\.\[(\w+)\]", text)} <= extras.keys()


def test_the_readme_is_short_and_begins_with_a_command():
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert max(map(len, lines)) < 120
    assert any(line.startswith("    ") for line in lines[:25])
    assert blocks(README)[0] == "make train"


@pytest.mark.parametrize("page", [*PAGES, TOUR], ids=lambda page: page.name)
def test_links_and_paths_lead_to_files(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / link).exists(), link
    for path in re.findall(r"\b(?:minigpt|tests|docs|benchmarks|weights/tiny)/[\w./-]*\w", text):
        assert (ROOT / path).exists() or (page.parent / path).exists(), path


def test_the_code_map_names_what_is_there():
    """Every file of the core and every package has a line; every line has a file or a folder."""
    lines = "\n".join(block for block in blocks(README) if block.lstrip().startswith(SHOWN[2:]))
    core, packages = set(), set()
    for line in lines.splitlines():
        inside = line.startswith("  ")
        names = re.match(r"\s*((?:[\w./]+(?:, )?)+)", line)[1].split(", ")
        for name in names:
            path = ROOT / "minigpt" / name if inside else ROOT / name
            assert path.exists(), name
            assert path.is_dir() == name.endswith("/"), name
            if inside:
                (packages if path.is_dir() else core).add(name)
    there = [p for p in (ROOT / "minigpt").iterdir() if p.name != "__pycache__"]
    assert core == {p.name for p in there if p.is_file()}
    assert packages == {f"{p.name}/" for p in there if p.is_dir()}
