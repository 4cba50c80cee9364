"""What is stored on disk: whole or not there, bounded, and never trusted unread."""

import hashlib
import json
import os
import subprocess
import sys
import time
import weakref

import numpy as np
import pytest
from conftest import ROOT

from minigpt.edge.errors import InputError
from minigpt.fast import store as cache

SHAPE = (30, 5)
A, B, C, D = (letter * 32 for letter in "abcd")  # keys are 32 hexadecimal digits


def pieces(seed=0):
    yield from np.random.default_rng(seed).normal(size=SHAPE).astype("<f4").reshape(3, 10, 5)


def put(key: str, seed=0, age=0.0):
    cache.store(key, SHAPE, "<f4", {"title": key}, pieces(seed))
    then = time.time() - age
    os.utime(cache.states_folder() / key, (then, then))


def test_pieces_come_back_as_one_array_mapped_from_disk():
    put(A)
    array = cache.load(A, SHAPE, "<f4")
    assert isinstance(array, np.memmap) and np.array_equal(array, np.concatenate([*pieces()]))
    assert cache.load(B, SHAPE, "<f4") is None
    assert cache.load(A, SHAPE, "<i2") is None  # not what it was taken for


def test_there_is_never_more_than_a_piece_in_memory():
    """So that what is stored may be larger than memory."""
    alive = []

    def watched():
        for i in range(20):
            piece = np.full((1, 5), i, dtype="<f4")
            alive.append(weakref.ref(piece))
            yield piece
            del piece
            assert sum(ref() is not None for ref in alive) <= 1

    cache.store(A, (20, 5), "<f4", {}, watched())
    assert cache.load(A, (20, 5), "<f4")[:, 0].tolist() == [*range(20)]


def test_what_fails_half_way_leaves_nothing(own_cache):
    def broken():
        yield next(pieces())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.store(A, SHAPE, "<f4", {}, broken())
    assert not any((own_cache / "states").iterdir())


def test_a_full_disk_is_told_in_one_line_and_leaves_nothing(own_cache, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"No space left on device.*--clear.*MINIGPT_CACHE"):
        put(A)
    assert not any((own_cache / "states").iterdir())


def test_the_least_recently_used_go_when_the_limit_is_passed(own_cache, monkeypatch):
    for i, key in enumerate((A, B, C)):
        put(key, age=100 - i)
    assert cache.load(A, SHAPE, "<f4") is not None  # used just now
    size = cache.size_of(own_cache / "states" / A)
    monkeypatch.setenv("MINIGPT_CACHE_LIMIT", str(2.5 * size))
    put(D)
    assert {p.name for p in (own_cache / "states").iterdir()} == {A, D}


def test_what_is_gone_at_once_can_still_be_read(own_cache, monkeypatch):
    """Another process may need the room before this one has opened what it wrote."""
    monkeypatch.setattr(cache, "make_room", lambda home, limit: cache.shutil.rmtree(home))
    array = cache.store(A, SHAPE, "<f4", {}, pieces())
    assert not (own_cache / "states").exists()
    assert np.array_equal(array, np.concatenate([*pieces()]))


def test_nothing_else_in_the_folder_is_touched(own_cache, monkeypatch):
    (own_cache / "states" / "mine").mkdir(parents=True)
    (own_cache / "states" / "mine" / "file").write_text("precious")
    (own_cache / "states" / "readme").write_text("precious")
    monkeypatch.setenv("MINIGPT_CACHE_LIMIT", "0")
    put(A)
    put(B)
    assert {p.name for p in (own_cache / "states").iterdir()} == {"mine", "readme", B}


@pytest.mark.parametrize("limit", ["ten", "-1", "nan"])
def test_a_limit_that_is_no_number_is_refused(limit, monkeypatch):
    monkeypatch.setenv("MINIGPT_CACHE_LIMIT", limit)
    with pytest.raises(InputError, match="MINIGPT_CACHE_LIMIT"):
        cache.cache_limit()


def test_what_a_killed_process_left_goes_after_a_day_if_room_is_needed(own_cache, monkeypatch):
    states = own_cache / "states"
    for name, age in ((".new-old", 25 * 3600), (".new-young", 60)):
        (states / name).mkdir(parents=True)
        (states / name / "states.npy").write_bytes(bytes(100))
        for path in (states / name / "states.npy", states / name):
            os.utime(path, (time.time() - age,) * 2)
    put(A)
    assert len(list(states.iterdir())) == 3
    monkeypatch.setenv("MINIGPT_CACHE_LIMIT", "0")
    put(B)
    assert {p.name for p in states.iterdir()} == {B, ".new-young"}


@pytest.mark.parametrize("forge", ["zip", "header", "transposed", "another shape"])
def test_a_forged_array_with_the_right_hash_is_removed(forge):
    put(A)
    folder = cache.states_folder() / A
    array = np.load(folder / "states.npy")
    if forge == "zip":
        with open(folder / "states.npy", "wb") as file:
            np.savez(file, array)
    elif forge == "header":
        whole = (folder / "states.npy").read_bytes()
        (folder / "states.npy").write_bytes(whole.replace(b"(30, 5)", b"(30, 5\n"))
    else:
        other = np.asfortranarray(array) if forge == "transposed" else array[1:]
        np.save(folder / "states.npy", other)
    digest = hashlib.sha256((folder / "states.npy").read_bytes()).hexdigest()
    (folder / "about.json").write_text(json.dumps({"title": A, "sha256": digest}))
    assert cache.load(A, SHAPE, "<f4") is None and not folder.exists()


def test_what_cannot_be_read_is_not_removed(own_cache, monkeypatch):
    put(A)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache.hashlib, "file_digest", refuse)
    assert cache.load(A, SHAPE, "<f4") is None
    monkeypatch.undo()
    assert (own_cache / "states" / A / "states.npy").exists()


WRITE = """
import sys, numpy as np
from minigpt.fast import store as cache
def pieces():
    for i in range(200):
        yield np.full((50, 20), i, dtype="<f4")
for key in (letter * 32 for letter in "abcde"):
    cache.store(key, (10000, 20), "<f4", {}, pieces())
    array = cache.load(key, (10000, 20), "<f4")
    assert (array[:, 3] == np.repeat(np.arange(200), 50)).all()
"""


def test_two_processes_may_want_the_same_at_once(own_cache):
    processes = [subprocess.Popen([sys.executable, "-c", WRITE], cwd=ROOT) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert {p.name for p in (own_cache / "states").iterdir()} == {x * 32 for x in "abcde"}
