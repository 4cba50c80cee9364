"""In JSON, keys that are guessed to be text and label are the same in every object."""

import json

import pytest

from minigpt.datasets import read_examples
from minigpt.edge.errors import InputError


def write(path, objects):
    path.write_text("".join(json.dumps(o) + "\n" for o in objects), encoding="utf-8")
    return path


def test_an_object_without_the_key_of_the_others_is_not_read_by_another_key(tmp_path):
    """Writers leave out what is null: `category` must not take the place of `label` in line 3."""
    objects = [{"text": f"so good {i}", "label": "pos", "category": "news"} for i in range(2)]
    path = write(tmp_path / "texts.jsonl", [*objects, {"text": "fine", "category": "sport"}])
    with pytest.raises(InputError, match=r"line 3: the text is in text and the label in category"):
        read_examples(path)


def test_a_guessed_key_is_that_of_all_objects(tmp_path):
    path = write(tmp_path / "t.jsonl", [{"text": "a", "label": 1}, {"body": "b", "label": 0}])
    with pytest.raises(InputError, match=r"line 2: .* body .*, but in .*line 1 .* text"):
        read_examples(path)


def test_names_that_are_no_guess_may_differ(tmp_path):
    path = write(tmp_path / "t.jsonl", [{"text": "a", "label": 1}, {"content": "b", "label": 0}])
    assert [e.text for e in read_examples(path)] == ["a", "b"]


def test_other_keys_may_differ(tmp_path):
    path = write(
        tmp_path / "t.jsonl", [{"text": "a", "label": 1, "x": 2}, {"label": 0, "text": "b"}]
    )
    assert [e.label for e in read_examples(path)] == ["1", "0"]
