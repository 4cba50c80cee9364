"""Files and folders that appear whole or not at all, and where a command may write."""

import os
import stat

import pytest
import torch
from safetensors import safe_open

from minigpt.edge import files
from minigpt.edge.errors import InputError

CONTENT = {"a.txt": "text\n", "b.safetensors": ({"x": torch.ones(2)}, {"note": "hello"})}


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_gets_its_files_with_the_rights_that_any_file_gets(tmp_path):
    folder = files.write_folder(tmp_path / "new" / "one", CONTENT)
    assert folder == tmp_path / "new" / "one" and names(folder) == [*CONTENT]
    assert names(folder.parent) == ["one"]  # nothing unfinished is left
    assert (folder / "a.txt").read_text() == "text\n"
    with safe_open(folder / "b.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt", "note": "hello"}
        assert torch.equal(file.get_tensor("x"), torch.ones(2))
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "file").touch()
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    for name in CONTENT:
        mode = stat.S_IMODE((tmp_path / "plain" / "file").stat().st_mode)
        assert stat.S_IMODE((folder / name).stat().st_mode) == mode


def test_a_name_that_is_taken_gets_a_number_if_that_is_wanted(tmp_path):
    (tmp_path / "run").mkdir()
    assert files.write_folder(tmp_path / "run", CONTENT, numbered=True).name == "run-2"
    assert files.write_folder(tmp_path / "run", CONTENT, numbered=True).name == "run-3"
    assert names(tmp_path) == ["run", "run-2", "run-3"] and names(tmp_path / "run") == []


def test_an_empty_folder_stays_the_folder_it_is(tmp_path):
    """It may be mounted, or be where somebody's shell is: another one must not take its place."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".new-left").mkdir()  # of a killed process
    before = (tmp_path / "run").stat().st_ino
    assert files.write_folder(tmp_path / "run", CONTENT) == tmp_path / "run"
    assert (tmp_path / "run").stat().st_ino == before
    assert names(tmp_path / "run") == [".new-left", *CONTENT] and names(tmp_path) == ["run"]


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_folder_that_cannot_be_written_is_left_as_it_was(call, there, tmp_path, monkeypatch):
    if there:
        (tmp_path / "run").mkdir()
    count, real = [0], getattr(os, call)

    def failing(*args):
        count[0] += 1
        if count[0] == 4:  # two files are written beside, the first is moved, and then
            raise OSError(28, "No space left on device")
        return real(*args)

    monkeypatch.setattr(os, call, failing)
    with pytest.raises(OSError, match="No space left"):
        files.write_folder(tmp_path / "run", CONTENT)
    assert count[0] >= 4
    assert names(tmp_path) == (["run"] if there else [])
    assert not there or names(tmp_path / "run") == []


def test_a_folder_that_holds_something_is_not_written_to(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="not empty"):
        files.write_folder(tmp_path, CONTENT)
    with pytest.raises(FileExistsError):
        files.write_folder(tmp_path / "file", CONTENT)
    assert names(tmp_path) == ["file"]


def test_where_a_command_may_write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check = files.check_output_folder
    assert check(None) is None
    assert check("a/new/one") == tmp_path / "a/new/one"
    for name in ("empty", "full", "own", "left/.new-x"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to("empty")
    for name in ("full/file", "own/results.json"):
        (tmp_path / name).touch()
    assert check("empty") == check("link") == tmp_path / "empty"  # links are followed
    assert check("left") == tmp_path / "left"
    assert check("own", own="results.json") == tmp_path / "own"
    with pytest.raises(InputError, match=r"^--to full exists and is not empty; choose another$"):
        check("full", "--to")
    with pytest.raises(InputError, match=r"not empty and has no results\.json of an earlier"):
        check("full", own="results.json")
    with pytest.raises(InputError, match="is a file, not a folder"):
        check("full/file")
    with pytest.raises(InputError, match=r"cannot be written \(Not a directory\)"):
        check("full/file/below")
    assert not (tmp_path / "a").exists() and not (tmp_path / "runs").exists()
    assert names(tmp_path / "empty") == [] and names(tmp_path / "own") == ["results.json"]
