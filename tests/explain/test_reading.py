"""Reading token by token: held against transformers, against cut texts, and against the text."""

import json
import xml.etree.ElementTree as ElementTree
from types import SimpleNamespace

import pytest
import torch
from transformers import GPT2Model

from minigpt.data import Example
from minigpt.datasets import load_dataset
from minigpt.explain import figures, reading, word_by_word
from minigpt.explain.accuracy import percent
from minigpt.explain.reading import SHARES, clearest_pair, parts_at, random_positions, vectors_at
from minigpt.explain.study import open_study
from minigpt.explain.word_by_word import LONG, read_text, recording, some_of_each_kind, spell

ODD = "Café 🎬\n <|endoftext|> \0 \ud800 </script> $x$ \u202e good"


@pytest.fixture
def study(checkpoint, texts):
    """Give a small random trunk and texts whose rating is one word, anywhere in them."""
    return open_study(str(checkpoint), str(texts), "cpu", (ODD, "bad " * 500, ""), quiet=True)


@pytest.fixture
def result(study):
    return reading.measure(study)


@torch.no_grad()
def test_the_attention_that_is_recorded_is_that_of_transformers(study, checkpoint):
    theirs = GPT2Model.from_pretrained(checkpoint, attn_implementation="eager").eval()
    ids = torch.from_numpy(study.tokens["test"].ids[0])[None]
    trunk, weights = recording(study.trunk)
    hidden = trunk(ids)
    expected = theirs(ids, output_attentions=True)
    torch.testing.assert_close(hidden, expected.last_hidden_state, atol=1e-4, rtol=1e-4)
    for ours, block in zip(weights, expected.attentions, strict=True):
        torch.testing.assert_close(ours, block[0], atol=1e-5, rtol=1e-4)  # (H, T, T)
    plain = study.trunk.h[0].attn.attention  # the trunk itself is as it was
    assert plain.__module__ == "minigpt.model"


def test_the_prediction_at_a_token_is_that_of_the_text_cut_there(study):
    ends = {s: random_positions(study, s) for s in ("train", "dev")}
    x = {s: vectors_at(study, s, positions) for s, positions in ends.items()}
    parts = [parts_at(study, {s: x[s][:, n] for s in x}, ends) for n in range(study.layers)]
    probes = study.probes(parts, "probes")
    trunk, weights = recording(study.trunk)
    example = max(study.examples("test"), key=lambda e: len(e.text))
    whole = read_text(study, trunk, weights, probes, probes[-1], example)
    for t in range(1, len(whole["tokens"])):
        text = "".join(whole["tokens"][:t])
        cut = read_text(study, trunk, weights, probes, probes[-1], Example(text, example.label))
        if cut["tokens"] == whole["tokens"][:t]:
            for ours, all_of_it in zip(cut["positive"], whole["positive"], strict=True):
                assert ours == pytest.approx(all_of_it[:t], abs=0.0011)  # both are rounded
            assert cut["attention"][-1][t - 1] == pytest.approx(
                whole["attention"][-1][t - 1], abs=0.0011
            )


def test_vectors_at_positions_are_those_of_the_trunk(study):
    positions = random_positions(study, "dev")
    vectors = vectors_at(study, "dev", positions)
    for i, ids in enumerate(study.tokens["dev"].ids):
        assert positions[i, -1] == len(ids) - 1 and positions[i].max() < len(ids)
        with torch.no_grad():
            hidden = study.trunk(torch.from_numpy(ids)[None])[0]
        torch.testing.assert_close(vectors[i, -1], hidden[positions[i]], atol=1e-4, rtol=1e-4)
    assert torch.equal(vectors, vectors_at(study, "dev", positions))  # the stored ones


def test_a_probe_fitted_at_ends_is_the_probe_of_the_last_token(study, result):
    last = study.probe_accuracy(study.at(study.layers - 1, -1))
    ends = result["shares"][-1]["at ends"]
    assert ends["accuracy"] == pytest.approx(last["accuracy"])
    assert ends["interval"] == pytest.approx(last["interval"])


def test_finding_and_table_have_the_results(result):
    assert [row["share"] for row in result["shares"]] == [*SHARES]
    for row, cells in zip(result["shares"], result["table"]["rows"], strict=True):
        assert len(cells) == len(result["table"]["columns"])
        assert cells[1] == percent(row["anywhere"]["accuracy"])
        assert cells[3] == percent(row["anywhere"]["sure"])
        assert cells[-2] == percent(row["at ends"]["accuracy"])
        for way in ("anywhere", "at ends"):
            assert 0.5 <= row[way]["sure"] <= 1
    half, whole = result["shares"][1], result["shares"][-1]
    for row in (half, whole):
        assert percent(row["anywhere"]["accuracy"]) in result["finding"]
        assert percent(row["at ends"]["accuracy"]) in result["finding"]
    json.dumps(result, allow_nan=False)


def test_the_texts_of_the_user_come_first_and_long_texts_are_cut(study, result):
    odd, long, empty = result["sentences"][:3]
    assert [text["label"] for text in (odd, long, empty)] == [None] * 3
    assert odd["text"] == ODD and not odd["truncated"]
    context = study.checkpoint.config.n_positions
    assert len(long["tokens"]) == min(LONG, context) and long["truncated"]
    assert empty["tokens"] == ["<|endoftext|>"]
    for text in result["sentences"]:
        T = len(text["tokens"])
        assert [len(row) for row in text["positive"]] == [T] * study.layers
        assert len(text["attention"]) == study.layers - 1
        for block in text["attention"]:
            assert [len(row) for row in block] == [*range(1, T + 1)]
            assert [sum(row) for row in block] == pytest.approx([1] * T, abs=0.001 * T)
    assert {text["label"] for text in result["sentences"][3:]} == {*study.labels}


@pytest.mark.parametrize("text", ["Café", "🎬 a 👩‍🚀", ODD, "日本", "the good tin\n\n"])
def test_tokens_together_are_the_text(study, text):
    tokens = spell(study.tokenizer, study.tokenizer.encode_ordinary(text))
    assert "".join(tokens) == text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def test_a_character_in_several_tokens_stands_at_the_last_of_them(study):
    ids = study.tokenizer.encode_ordinary("é🎬")
    assert spell(study.tokenizer, ids) == ["", "é", "", "", "", "🎬"]
    assert spell(study.tokenizer, ids[:4]) == ["", "é", "", "\ufffd"]  # cut within it


def test_texts_of_all_kinds_are_shown_in_whole_pairs():
    examples = load_dataset("mirrored", 0).test
    chosen = some_of_each_kind(examples, 24)
    assert len(chosen) == 24 and {e.kind for e in chosen} == {e.kind for e in examples}
    for first, second in zip(chosen[::2], chosen[1::2], strict=True):
        assert first.pair == second.pair and first.label != second.label
    assert [e.kind for e in chosen] == sorted(e.kind for e in chosen)
    assert some_of_each_kind(examples[:3], 24) == [examples[i] for i in (0, 1, 2)]


def test_our_own_texts_are_for_data_they_are_like(study, monkeypatch, texts, result):
    assert "our own" not in {text["kind"] for text in result["sentences"]}
    monkeypatch.setattr(word_by_word, "FILM_REVIEWS", (str(texts),))
    own = [text for text in reading.measure(study)["sentences"] if text["kind"] == "our own"]
    assert [text["label"] for text in own] == [*study.labels] * (len(own) // 2)


def test_more_than_two_classes_are_skipped_saying_so(checkpoint, tmp_path):
    path = tmp_path / "three.tsv"
    rows = [f"the {['good', 'bad', 'tin'][i % 3]} {i}\t{'abc'[i % 3]}" for i in range(60)]
    path.write_text("\n".join(rows), encoding="utf-8")
    skipped = reading.measure(open_study(str(checkpoint), str(path), "cpu", quiet=True))
    assert "3 classes" in skipped["skipped"] and "finding" not in skipped


@pytest.mark.filterwarnings("error")
def test_the_figure_is_drawn_whatever_is_in_the_texts(study, result):
    def drawn():
        with figures.in_style():
            return figures.svg(reading.draw(result))

    svg = drawn()
    texts = [e.text for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("}text")]
    assert {"C", "good", "◌", *(f"100 % {label}" for label in study.labels)} <= {*texts}
    assert svg == drawn()


def test_the_pair_that_comes_first_is_the_surest_of_those_that_are_right():
    examples = [Example("", "", pair=str(i // 2)) for i in range(6)]
    classes = torch.tensor([0, 1, 1, 0, 0, 1])
    study = SimpleNamespace(classes={"test": classes}, examples=lambda split: examples)
    probe = torch.tensor([[3.0, 0], [0, 0.5], [0, 2], [2, 0], [9, 0], [9, 0]])
    assert clearest_pair(study, [probe, 2 * probe]) == [2, 3]
    assert clearest_pair(study, [probe, -probe]) == []  # by one of the two, none is right
    study.examples = lambda split: [Example("", "")] * 6
    assert clearest_pair(study, [probe, probe]) == []


def test_the_figure_says_which_texts_are_of_the_data_set(result):
    texts = {"label": "good", "kind": "plain"}
    assert reading.source(texts) == "plain, of the test texts"
    assert reading.source(texts | {"kind": word_by_word.OWN_KIND}).endswith("not of the data set")
    assert reading.source(result["sentences"][0]) == "a text of yours"
