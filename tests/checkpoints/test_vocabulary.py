"""Files that are not a GPT-2 vocabulary are refused before anything is encoded with them."""

import dataclasses
import json

import pytest
from conftest import SMALL, write_vocabulary

from minigpt.checkpoints import Checkpoint, open_tokenizer
from minigpt.edge.errors import InputError
from minigpt.tokenizer import END_OF_TEXT


def opened(folder, vocab_size: int = SMALL.vocab_size):
    """Open the tokenizer of a folder as that of a model with so many tokens."""
    config = dataclasses.replace(SMALL, vocab_size=vocab_size)
    return open_tokenizer(Checkpoint("x", folder, "", config))


def renamed(old: str, new: str):
    """Return an edit of vocab.json that gives a token another name."""
    return lambda s: s.replace(json.dumps(old) + ":", json.dumps(new) + ":")


BAD = {  # which file is edited, how, and what the message says
    "empty": ("vocab.json", lambda s: "", "vocab.json"),
    "not JSON": ("vocab.json", lambda s: s[:-9], "vocab.json"),
    "nested without end": ("vocab.json", lambda s: "[" * 99_999, "vocab.json"),
    "a list": ("vocab.json", lambda s: json.dumps(list(json.loads(s))), "not a table"),
    "numbers as words": ("vocab.json", lambda s: s.replace(" 7,", ' "7",'), "not a table"),
    "no end of text": ("vocab.json", renamed(END_OF_TEXT, "<|end|>"), f"no {END_OF_TEXT}"),
    "no byte": ("vocab.json", renamed("good", "go日"), "character '日' stands for no byte"),
    "other token": ("vocab.json", renamed("good", "nice"), "do not belong together"),
    "a byte is missing": ("vocab.json", renamed("z", "zz"), "do not belong together"),
    "gap in numbers": ("vocab.json", lambda s: s.replace(" 267}", " 269}"), "gaps"),
    "a token too long": ("vocab.json", renamed("good", "o" * 300), "of more than 256 bytes"),
    "no merges": ("merges.txt", lambda s: "", "does not make"),
    "merges swapped": ("merges.txt", lambda s: s.replace("h e\ni n", "i n\nh e"), "not belong"),
    "merge lost": ("merges.txt", lambda s: s.replace("b a\n", ""), "does not make"),
    "merge too many": ("merges.txt", lambda s: s + "z z\n", "not belong"),
    "merge repeated": ("merges.txt", lambda s: s + "h e\n", "not belong"),
    "merges not UTF-8": ("merges.txt", lambda s: s + "\udcff", "merges.txt"),
}


@pytest.mark.parametrize("file, edit, says", BAD.values(), ids=BAD)
def test_files_that_are_not_a_vocabulary_are_refused_by_name(file, edit, says, tmp_path):
    write_vocabulary(tmp_path)
    opened(tmp_path)  # good until now
    old = (tmp_path / file).read_text(encoding="utf-8")
    assert edit(old) != old
    (tmp_path / file).write_text(edit(old), encoding="utf-8", errors="surrogateescape")
    with pytest.raises(InputError) as error:
        opened(tmp_path)
    message = str(error.value)
    assert str(tmp_path / file) in message and says in message and "\n" not in message


@pytest.mark.parametrize("file", ["vocab.json", "merges.txt"])
def test_a_missing_file_is_named(file, tmp_path):
    write_vocabulary(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(InputError, match=rf"{file} is missing"):
        opened(tmp_path)


@pytest.mark.parametrize("more, fits", [(-1, False), (0, True), (47, True), (128, False)])
def test_a_vocabulary_must_fill_the_rows_of_the_model_but_for_rounding(more, fits, tmp_path):
    write_vocabulary(tmp_path)
    if fits:
        assert opened(tmp_path, SMALL.vocab_size + more).eot_token == SMALL.vocab_size - 1
    else:
        with pytest.raises(InputError, match=r"vocab\.json has 268 tokens, the model \d+"):
            opened(tmp_path, SMALL.vocab_size + more)


ONE_FILE = {  # what is changed in a tokenizer.json, and what the message says
    "normalizer": ({"normalizer": {"type": "NFC"}}, "normalizer is {'type': 'NFC'}, not null"),
    "words": ({"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer.type is 'Whitespace', not"),
    "no words": ({"pre_tokenizer": None}, "pre_tokenizer.type is missing"),
    "space": (
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}},
        "pre_tokenizer.add_prefix_space is True, not False",
    ),
    "no model": ({"model": []}, "model.vocab is missing"),
}


def one_file(folder) -> dict:
    """Return a tokenizer.json, in place of vocab.json and merges.txt."""
    write_vocabulary(folder)
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    fields = {
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
        "model": {
            "vocab": json.loads(vocab.read_text(encoding="utf-8")),
            "merges": merges.read_text(encoding="utf-8").split("\n")[1:-1],
        },
    }
    vocab.unlink()
    merges.unlink()
    return fields


def test_a_tokenizer_json_is_read_in_place_of_the_two_files(tmp_path):
    fields = one_file(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps(fields))
    ids = opened(tmp_path).encode_ordinary("the good")
    fields["model"]["merges"] = [pair.split(" ") for pair in fields["model"]["merges"]]  # as newer
    (tmp_path / "tokenizer.json").write_text(json.dumps(fields))
    assert opened(tmp_path).encode_ordinary("the good") == ids
    write_vocabulary(tmp_path)
    assert opened(tmp_path).encode_ordinary("the good") == ids


@pytest.mark.parametrize("change, says", ONE_FILE.values(), ids=ONE_FILE)
def test_a_tokenizer_json_that_changes_texts_is_refused(change, says, tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(one_file(tmp_path) | change))
    with pytest.raises(InputError) as error:
        opened(tmp_path)
    assert str(tmp_path / "tokenizer.json") in str(error.value) and says in str(error.value)
