"""The hash of a file is computed once, remembered, and never believed when the file has changed."""

import hashlib
import os
import time

import pytest

from minigpt.checkpoints.hashes import sha256_of
from minigpt.edge.files import cache_folder


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"weights")
    return path


def memory():
    (path,) = (cache_folder() / "sha256").iterdir()
    return path


def old(path, monkeypatch):
    """Let a file be older than the two seconds in which it might still change unseen."""
    later = time.time_ns() + 10**10
    monkeypatch.setattr(time, "time_ns", lambda: later)


def test_a_remembered_hash_is_used_while_the_file_is_the_same(file, monkeypatch):
    old(file, monkeypatch)
    right = hashlib.sha256(b"weights").hexdigest()
    assert sha256_of([file]) == right
    assert memory().read_text().startswith(right)
    monkeypatch.setattr(hashlib, "file_digest", None)  # would fail if the file were read again
    assert sha256_of([file]) == right


def test_another_content_is_another_hash_even_with_the_same_size_and_time(file, monkeypatch):
    old(file, monkeypatch)
    before, times = sha256_of([file]), file.stat()
    file.write_bytes(b"WEIGHTS")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # what a copy may do
    assert sha256_of([file]) == hashlib.sha256(b"WEIGHTS").hexdigest() != before


@pytest.mark.parametrize("damage", ["", "0" * 81, "\u00e9"])
def test_a_damaged_memory_is_not_believed(damage, file, monkeypatch):
    old(file, monkeypatch)
    right = sha256_of([file])
    memory().write_text(damage, encoding="utf-8")
    assert sha256_of([file]) == right


def test_a_file_that_has_just_been_written_is_not_remembered(file):
    sha256_of([file])
    assert not (cache_folder() / "sha256").exists()


def test_several_files_have_one_hash_which_is_that_of_their_bytes_in_order(file, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b" and more")
    assert sha256_of([file, other]) == hashlib.sha256(b"weights and more").hexdigest()
    assert sha256_of([other, file]) != sha256_of([file, other])
