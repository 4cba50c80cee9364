"""Reading token by token: held against transformers, against cut texts, and against the text."""

import json
import xml.etree.ElementTree as ElementTree

import pytest
import torch
from transformers import GPT2Model

from minigpt.datasets.load import load_dataset
from minigpt.explain import plots, sentences, style
from minigpt.explain.bench import open_bench
from minigpt.explain.findings import percent
from minigpt.explain.reading import SHARES, anywhere, fit, reading, vectors
from minigpt.explain.sentences import LONG, read_out, recording, some_of_each_kind, spell

ODD = "Café 🎬\n <|endoftext|> \0 \ud800 </script> $x$ \u202e good"


@pytest.fixture
def bench(checkpoint, texts):
    """Give a small random trunk and texts whose rating is one word, anywhere in them."""
    return open_bench(str(checkpoint), str(texts), "cpu", (ODD, "bad " * 500, ""), quiet=True)


@pytest.fixture
def result(bench):
    return reading(bench)


@torch.no_grad()
def test_the_attention_that_is_noted_is_that_of_transformers(bench, checkpoint):
    theirs = GPT2Model.from_pretrained(checkpoint, attn_implementation="eager").eval()
    ids = torch.from_numpy(bench.tokens["test"].ids[0])[None]
    trunk, weights = recording(bench.trunk)
    hidden = trunk(ids)
    found = theirs(ids, output_attentions=True)
    torch.testing.assert_close(hidden, found.last_hidden_state, atol=1e-4, rtol=1e-4)
    for ours, block in zip(weights, found.attentions, strict=True):
        torch.testing.assert_close(ours, block[0].mean(0), atol=1e-5, rtol=1e-4)
    plain = bench.trunk.h[0].attn.attention  # the trunk itself is as it was
    assert plain.__module__ == "minigpt.model"


def test_the_verdict_at_a_token_is_that_of_the_text_cut_there(bench):
    ends = {s: vectors(bench, s, anywhere(bench, s)) for s in ("train", "dev")}
    probes = [fit(bench, {s: x[:, k] for s, x in ends.items()}) for k in range(bench.layers)]
    trunk, weights = recording(bench.trunk)
    example = max(bench.examples("test"), key=lambda e: len(e.text))
    whole = read_out(bench, trunk, weights, probes, example)
    for t in range(1, len(whole["tokens"])):
        text = "".join(whole["tokens"][:t])
        cut = read_out(bench, trunk, weights, probes, type(example)(text, example.label))
        if cut["tokens"] == whole["tokens"][:t]:
            for ours, all_of_it in zip(cut["positive"], whole["positive"], strict=True):
                assert ours == pytest.approx(all_of_it[:t], abs=0.0011)  # both are rounded
            assert cut["attention"][-1][t - 1] == pytest.approx(
                whole["attention"][-1][t - 1], abs=0.0011
            )


def test_vectors_at_places_are_those_of_the_trunk(bench):
    places = anywhere(bench, "dev")
    found = vectors(bench, "dev", places)
    for i, ids in enumerate(bench.tokens["dev"].ids):
        assert places[i, -1] == len(ids) - 1 and places[i].max() < len(ids)
        with torch.no_grad():
            hidden = bench.trunk(torch.from_numpy(ids)[None])[0]
        torch.testing.assert_close(found[i, -1], hidden[places[i]], atol=1e-4, rtol=1e-4)
    assert torch.equal(found, vectors(bench, "dev", places))  # the kept ones


def test_at_the_end_a_plane_fitted_at_ends_is_the_probe_of_the_last_token(bench, result):
    last = bench.accuracy(bench.at(bench.layers - 1, -1))
    ends = result["shares"][-1]["at ends"]
    assert ends["accuracy"] == pytest.approx(last["accuracy"])
    assert ends["interval"] == pytest.approx(last["interval"])


def test_words_and_table_say_what_was_found(result):
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


def test_what_the_reader_gave_comes_first_and_long_texts_are_cut(bench, result):
    odd, long, empty = result["sentences"][:3]
    assert [text["label"] for text in (odd, long, empty)] == [None] * 3
    assert odd["text"] == ODD and not odd["truncated"]
    context = bench.checkpoint.config.n_positions
    assert len(long["tokens"]) == min(LONG, context) and long["truncated"]
    assert empty["tokens"] == ["<|endoftext|>"]
    for text in result["sentences"]:
        T = len(text["tokens"])
        assert [len(row) for row in text["positive"]] == [T] * bench.layers
        assert len(text["attention"]) == bench.layers - 1
        for block in text["attention"]:
            assert [len(row) for row in block] == [*range(1, T + 1)]
            assert [sum(row) for row in block] == pytest.approx([1] * T, abs=0.001 * T)
    assert {text["label"] for text in result["sentences"][3:]} == {*bench.labels}


@pytest.mark.parametrize("text", ["Café", "🎬 a 👩‍🚀", ODD, "日本", "the good tin\n\n"])
def test_tokens_together_are_the_text(bench, text):
    tokens = spell(bench.tokenizer, bench.tokenizer.encode_ordinary(text))
    assert "".join(tokens) == text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def test_a_character_in_several_tokens_stands_at_the_last_of_them(bench):
    ids = bench.tokenizer.encode_ordinary("é🎬")
    assert spell(bench.tokenizer, ids) == ["", "é", "", "", "", "🎬"]
    assert spell(bench.tokenizer, ids[:4]) == ["", "é", "", "\ufffd"]  # cut within it


def test_texts_of_all_kinds_are_shown_with_their_twins():
    examples = load_dataset("mirrored", 0).test
    chosen = some_of_each_kind(examples, 24)
    assert len(chosen) == 24 and {e.kind for e in chosen} == {e.kind for e in examples}
    for first, second in zip(chosen[::2], chosen[1::2], strict=True):
        assert first.pair == second.pair and first.label != second.label
    assert [e.kind for e in chosen] == sorted(e.kind for e in chosen)
    assert some_of_each_kind(examples[:3], 24) == [examples[i] for i in (0, 1, 2)]


def test_our_own_texts_are_for_data_they_are_like(bench, monkeypatch, texts, result):
    assert "our own" not in {text["kind"] for text in result["sentences"]}
    monkeypatch.setattr(sentences, "RATINGS", (str(texts),))
    own = [text for text in reading(bench)["sentences"] if text["kind"] == "our own"]
    assert [text["label"] for text in own] == [*bench.labels] * (len(own) // 2)


def test_more_than_two_classes_are_skipped_saying_so(checkpoint, tmp_path):
    path = tmp_path / "three.tsv"
    rows = [f"the {['good', 'bad', 'tin'][i % 3]} {i}\t{'abc'[i % 3]}" for i in range(60)]
    path.write_text("\n".join(rows), encoding="utf-8")
    found = reading(open_bench(str(checkpoint), str(path), "cpu", quiet=True))
    assert "3 classes" in found["skipped"] and "finding" not in found


@pytest.mark.filterwarnings("error")
def test_the_strip_is_drawn_whatever_is_in_the_texts(bench, result):
    about = {"data": {"labels": bench.labels}}
    svg = style.svg(plots.draw("reading", result, about))
    texts = [e.text for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("}text")]
    assert {"C", "good", "◌", *bench.labels} <= {*texts}
    assert svg == style.svg(plots.draw("reading", result, about))
