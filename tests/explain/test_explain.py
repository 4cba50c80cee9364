"""The experiments: probes compared with scikit-learn, interventions with cases whose answer is
known, and with doing the same over the whole text.
"""

import dataclasses
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, files_of, oracle_of, random_trunk
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from transformers import GPT2LMHeadModel

from minigpt.data import Tokens
from minigpt.datasets import load_dataset
from minigpt.explain import (
    controls,
    figures,
    heads,
    knock_out,
    ladder,
    patching,
    pooling,
    where,
    words,
)
from minigpt.explain import study as studies
from minigpt.explain.accuracy import bootstrap_interval, difference, range_of, versus_chance
from minigpt.explain.hidden_states import POSITIONS
from minigpt.explain.interventions import (
    attention_replaced,
    heads_at_last_token,
    heads_of,
    read_last_token,
    read_unchanged,
)
from minigpt.explain.knock_out import always, last_tokens_only
from minigpt.explain.patching import patch
from minigpt.explain.run import EXPERIMENTS
from minigpt.explain.study import fit_probe, open_study, sample
from minigpt.head import HEAD_RECIPE, Vectors
from minigpt.metrics import wilson_interval
from minigpt.model import attention

IDS = torch.arange(2 * 9).view(2, 9) % 7 + 40  # two texts of nine tokens


@pytest.fixture
def study(checkpoint, texts):
    """Give a small random trunk and texts whose rating is one word, anywhere in them."""
    return open_study(str(checkpoint), str(texts), "cpu", quiet=True)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Give the bundled trunk and a part of the bundled pairs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINIGPT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(studies, "AT_MOST", {"train": 400, "dev": 60, "test": 200})
        yield open_study("tiny", "mirrored", "cpu", quiet=True)


def clouds(classes: int, n: int, seed: int):
    """Return vectors of classes that overlap, on channels of very different size, and labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=n)
    x = random.normal(size=(n, 20))
    x[:, :classes] += 1.5 * np.eye(classes)[labels]
    return torch.from_numpy((x + 2) * np.geomspace(1e-3, 1e3, 20)), torch.from_numpy(labels)


def best_on_dev(x: dict, y: dict) -> LogisticRegression:
    """Return scikit-learn's logistic regression with the penalty that has the least loss on dev."""
    fits = [
        LogisticRegression(C=c, max_iter=5000).fit(x["train"], y["train"])
        for c in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1)
    ]
    return min(fits, key=lambda fit: log_loss(y["dev"], fit.predict_proba(x["dev"])))


@pytest.mark.parametrize("classes", [2, 3])
def test_a_probe_is_as_good_as_scikit_learns_logistic_regression(classes):
    splits = zip(("train", "dev", "test"), (600, 300, 2000), strict=True)
    clouds_of = {split: clouds(classes, n, seed) for seed, (split, n) in enumerate(splits)}
    x, y = ({split: part[i] for split, part in clouds_of.items()} for i in (0, 1))
    parts = [Vectors(x[s].float().numpy(), y[s], np.arange(len(y[s]))) for s in ("train", "dev")]
    logits = x["test"].float() @ fit_probe(*parts, classes).T
    assert logits.shape == (2000, classes)
    mean, spread = x["train"].mean(0), x["train"].std(0, correction=0)
    oracle = best_on_dev({s: ((part - mean) / spread).numpy() for s, part in x.items()}, y)
    theirs = oracle.predict_proba(((x["test"] - mean) / spread).numpy())
    accuracy = (logits.argmax(1) == y["test"]).double().mean().item()
    assert accuracy == pytest.approx((theirs.argmax(1) == y["test"].numpy()).mean(), abs=0.015)
    loss = torch.nn.functional.cross_entropy(logits, y["test"]).item()
    assert loss == pytest.approx(log_loss(y["test"], theirs), abs=0.15)  # less sure, by its recipe


def test_on_hidden_states_a_probe_is_as_good_as_scikit_learns_best_on_dev(real):
    vectors = real.at(real.layers - 1, -1)
    mean, spread = vectors["train"].mean(0), vectors["train"].std(0, correction=0)
    x = {split: ((part - mean) / spread).double().numpy() for split, part in vectors.items()}
    y = {split: labels.numpy() for split, labels in real.classes.items()}
    theirs = best_on_dev(x, y).score(x["test"], y["test"])
    assert abs(real.probe_accuracy(vectors)["accuracy"] - theirs) < 0.03  # 6 of 200 texts


def test_a_probe_bears_a_constant_channel_and_a_single_class():
    x, y = clouds(2, 50, 0)
    x[:, 3] = 7.0
    texts = Vectors(x.float().numpy(), y, np.arange(50))
    weight = fit_probe(texts, texts, 2)
    assert weight.isfinite().all() and weight.abs().max() < 1e6
    negative = dataclasses.replace(texts, labels=y * 0)
    logits = torch.from_numpy(texts.x) @ fit_probe(negative, negative, 2).T
    assert (logits.argmax(1) == 0).all() and logits.diff().max() < 0


def test_an_interval_draws_pairs_whole_and_is_the_same_each_time():
    right = np.array([1, 1, 0, 1, 0, 1, 1, 1, 0, 1] * 40)
    alone = bootstrap_interval(right, np.arange(400))
    assert alone == pytest.approx(wilson_interval(right.sum(), 400), abs=0.01)
    assert alone == bootstrap_interval(right, np.arange(400))
    double = bootstrap_interval(np.repeat(right, 2), np.repeat(np.arange(400), 2))
    assert double == pytest.approx(alone, abs=0.01)  # twice the same is no more to know
    one_of_two = bootstrap_interval(np.tile([0, 1], 50), np.repeat(np.arange(50), 2))
    assert one_of_two == (0.5, 0.5)


def test_a_difference_is_paired_and_draws_pairs_whole():
    random = np.random.default_rng(0)
    a, b = random.random((2, 400)) < [[0.85], [0.7]]
    alone = difference(a, b, np.arange(400))
    spread = 1.96 * (a * 1.0 - b).std() / 20  # of a mean of 400
    assert alone["points"] == pytest.approx(a.mean() - b.mean())
    assert alone["interval"] == pytest.approx(
        (alone["points"] - spread, alone["points"] + spread), abs=0.01
    )
    double = difference(a.repeat(2), b.repeat(2), np.arange(400).repeat(2))
    assert double["interval"] == pytest.approx(alone["interval"], abs=0.01)
    assert difference(b, a, np.arange(400))["points"] == -alone["points"]
    assert difference(a, a, np.arange(400))["words"].startswith("0.0 points more")
    for x, y, said in ((a, b, False), (a, np.roll(a, 7), True)):
        assert ("not distinguishable" in difference(x, y, np.arange(400))["words"]) == said


def test_a_range_is_no_interval():
    figures = range_of([{"accuracy": x, "interval": (0, 1)} for x in (0.4, 0.5, 0.9)], "seeds")
    assert figures == {
        "times": 3,
        "range_of": "range of 3 seeds",
        "accuracy": pytest.approx(0.6),
        "accuracy_range": (0.4, 0.9),
    }


AT_MOST = dict(studies.AT_MOST)  # as it is: a fixture makes it smaller


def test_mirrored_is_used_whole():
    data = load_dataset("mirrored", 0)
    for split, most in AT_MOST.items():
        assert sample(getattr(data, split), most, 0) == getattr(data, split)


def test_hidden_states_are_those_of_transformers_and_of_each_text_alone(study, checkpoint):
    theirs = GPT2LMHeadModel.from_pretrained(checkpoint).eval()
    texts, states = study.tokens["test"], study.hidden_states["test"]
    for i in range(0, len(texts), 5):
        ids = torch.from_numpy(texts.ids[i])[None]
        with torch.no_grad():
            hidden = theirs(ids, output_hidden_states=True).hidden_states
        for layer, x in enumerate(hidden):
            for position in (-1, -3, 0, 5, -16):
                ours = states.at(layer, position)[i]
                if -len(ids[0]) <= position < len(ids[0]):
                    torch.testing.assert_close(ours, x[0, position], atol=1e-4, rtol=1e-4)
                else:
                    assert ours.isnan().all()
            mean = states.at(layer, "mean")[i]
            torch.testing.assert_close(mean, x[0].mean(0), atol=1e-4, rtol=1e-4)
    assert len(POSITIONS) == states.array.shape[2]


def test_hidden_states_are_stored(study, monkeypatch):
    before = study.hidden_states["dev"].at(2, -1)
    monkeypatch.setattr(studies, "every_layer", None)  # computing them again would fail
    again = dataclasses.replace(study)
    torch.testing.assert_close(again.hidden_states["dev"].at(2, -1), before, equal_nan=True)


def test_the_classic_mistake_reads_a_pad(study):
    texts = study.tokens["test"]
    padded = pooling.padded_in_order(study, texts, size=4)
    ids = [torch.from_numpy(text) for text in texts.ids[4:8]]
    batch = torch.nn.utils.rnn.pad_sequence(ids, True, study.tokenizer.eot_token)
    with torch.no_grad():
        wrong = study.trunk(batch)[:, -1]
    torch.testing.assert_close(study.pooled(padded)[4:8], wrong, atol=1e-4, rtol=1e-4)


def test_knocking_out_nothing_changes_nothing():
    trunk = random_trunk()
    whole = read_unchanged(trunk, IDS)
    torch.testing.assert_close(read_last_token(trunk, whole), whole.layers[-1][:, -1])
    with attention_replaced(trunk, dict.fromkeys(range(3), last_tokens_only(9))):
        torch.testing.assert_close(read_last_token(trunk, whole), whole.layers[-1][:, -1])


def test_a_token_that_attends_only_to_itself_does_not_depend_on_the_others():
    trunk, other = random_trunk(), IDS.clone()
    other[:, :-1] += 1
    with attention_replaced(trunk, dict.fromkeys(range(3), last_tokens_only(1))):
        cut = [read_last_token(trunk, read_with_own_attention(trunk, ids)) for ids in (IDS, other)]
    torch.testing.assert_close(*cut)
    assert trunk.h[0].attn.attention.__module__ == "minigpt.model"  # the trunk is as it was


def read_with_own_attention(trunk, ids):
    """Read texts by the trunk's own attention, whatever it is replaced by just now."""
    before = [block.attn.attention for block in trunk.h]
    for block in trunk.h:
        block.attn.attention = attention
    whole = read_unchanged(trunk, ids)
    for block, own in zip(trunk.h, before, strict=True):
        block.attn.attention = own
    return whole


@torch.no_grad()
@pytest.mark.parametrize(("blocks", "w"), [((1,), 1), ((1, 2), 1), ((0, 1, 2), 3)])
def test_cutting_is_a_mask_on_the_last_row(blocks, w):
    trunk = random_trunk()

    def masked(q, k, v, dropout=0.0):  # over the whole text, the long way round
        T = q.size(-2)
        sees = torch.ones(T, T, dtype=torch.bool).tril()
        sees[-1, : T - w] = False
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))
        return scores.masked_fill(~sees, -math.inf).softmax(-1) @ v

    with attention_replaced(trunk, dict.fromkeys(blocks, masked)):
        long_way = trunk(IDS)[:, -1]
    whole = read_unchanged(trunk, IDS)
    with attention_replaced(trunk, dict.fromkeys(blocks, last_tokens_only(w))):
        torch.testing.assert_close(read_last_token(trunk, whole), long_way, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("block", [0, 2])
def test_a_head_that_is_replaced_is_a_hook_before_the_output_matrix(block):
    trunk = random_trunk()
    given = torch.linspace(-1, 1, 24).view(2, 12)  # (H, D)
    whole = read_unchanged(trunk, IDS)
    with attention_replaced(trunk, {block: always(given)}):
        mean = read_last_token(trunk, whole)
    with attention_replaced(trunk, {block: heads.heads_replaced([1], given.expand(2, 2, 12))}):
        one = read_last_token(trunk, whole)
    for replaced, channels in ((mean, slice(0, 24)), (one, slice(12, 24))):

        def put(_, args, channels=channels):
            args[0][:, -1, channels] = given.flatten()[channels]

        hook = trunk.h[block].attn.c_proj.register_forward_pre_hook(put)
        torch.testing.assert_close(replaced, trunk(IDS)[:, -1], atol=1e-5, rtol=1e-5)
        hook.remove()


@torch.no_grad()
def test_the_heads_at_the_last_token_are_those_of_transformers():
    trunk = random_trunk()
    outputs, weights = heads_at_last_token(trunk, read_unchanged(trunk, IDS))
    theirs = oracle_of(trunk, attn_implementation="eager")
    attentions = theirs(IDS, output_attentions=True).attentions
    expected = torch.stack([block[:, :, -1] for block in attentions], 1)
    torch.testing.assert_close(weights, expected, atol=1e-5, rtol=1e-4)
    own = {i: always(outputs[0, i]) for i in range(3)}  # of the first text
    whole = read_unchanged(trunk, IDS[:1])
    with attention_replaced(trunk, own):
        torch.testing.assert_close(read_last_token(trunk, whole), whole.layers[-1][:, -1])


def test_a_token_that_differs_is_in_no_part_that_two_texts_share():
    text, other = np.array([1, 2, 3, 4, 5, 6]), np.array([1, 9, 9, 4, 5, 6])
    differing, first, itself = heads.targets_of(text, other)
    assert differing.tolist() == [0, 1, 1, 0, 0, 0]
    assert first.tolist() == [1, 0, 0, 0, 0, 0] and itself.tolist() == [0, 0, 0, 0, 0, 1]
    targets = heads.targets_of(np.array([1]), np.array([2]))
    assert targets.tolist() == [[False], [False], [True]]  # no token is two of them


def test_the_verdict_is_settled_in_the_block_with_the_largest_rise():
    assert patching.settled_in([[0, 0.0], [0, 0.1], [0, 0.7], [0, 1.0]]) == 2


def test_patching_a_text_with_itself_changes_nothing():
    trunk = random_trunk()
    whole = read_unchanged(trunk, IDS)
    for layer in range(4):
        for token in (0, 4, 8):
            own = whole.layers[layer][:, token, None]
            patched = patch(trunk, whole, layer, token, own)
            torch.testing.assert_close(patched, whole.layers[-1][:, -1])


def test_patching_every_token_at_layer_0_or_the_last_at_the_top_gives_the_other_text():
    trunk = random_trunk()
    whole, other = read_unchanged(trunk, IDS), read_unchanged(trunk, IDS.flip(0))
    theirs = other.layers[-1][:, -1]
    torch.testing.assert_close(patch(trunk, whole, 0, 0, other.layers[0]), theirs)
    torch.testing.assert_close(patch(trunk, whole, 3, 8, other.layers[3][:, -1:]), theirs)


@torch.no_grad()
@pytest.mark.parametrize(("layer", "token"), [(0, 2), (1, 8), (2, 5)])
def test_patching_is_a_hook_before_a_block(layer, token):
    trunk, vector = random_trunk(), torch.linspace(-1, 1, 24)
    short_way = patch(trunk, read_unchanged(trunk, IDS), layer, token, vector.expand(2, 1, -1))

    def put(_, args):
        args[0][:, token] = vector

    trunk.h[layer].register_forward_pre_hook(put)
    torch.testing.assert_close(short_way, trunk(IDS)[:, -1], atol=1e-5, rtol=1e-5)


def test_the_texts_of_a_pair_are_patched_with_each_other(study):
    ids = [np.arange(n) % 200 for n in (16, 20, 18, 17)]
    tokens = Tokens(ids, torch.tensor([0, 1, 1, 0]))
    study = dataclasses.replace(study, tokens={"test": tokens})
    texts, others = np.arange(4), np.array([1, 0, 3, 2])
    vectors = patching.patched_vectors(study, texts, others)
    whole = study.pooled(tokens)
    torch.testing.assert_close(vectors[:, -1, -1], whole[others], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(vectors[:, -1, -2], whole, atol=1e-4, rtol=1e-4)
    own = read_unchanged(study.trunk, torch.from_numpy(ids[1])[None])
    theirs = read_unchanged(study.trunk, torch.from_numpy(ids[0])[None])
    by_hand = patch(study.trunk, own, 1, 18, theirs.layers[1][:, -2:-1])
    torch.testing.assert_close(vectors[1, 1, -2], by_hand[0], atol=1e-4, rtol=1e-4)


def test_a_preference_is_the_language_models_own(study, checkpoint):
    theirs = GPT2LMHeadModel.from_pretrained(checkpoint).eval()
    good, bad = {"good": 266}, {"bad": 300 - 33, "in": 258}
    scores = words.preferences(study, "dev", good, bad)
    assert scores.shape == (len(study.tokens["dev"]), len(words.TEMPLATES))
    for i in (0, 3):
        prompt = study.tokenizer.encode_ordinary(words.TEMPLATES[1])
        ids = torch.tensor([[*study.tokens["dev"].ids[i], *prompt]])
        with torch.no_grad():
            p = theirs(ids).logits[0, -1].softmax(-1)
        odds = (p[266] / (p[267] + p[258])).log()
        assert scores[i, 1].item() == pytest.approx(odds.item(), abs=1e-3)


@pytest.mark.parametrize(
    "flags", ["--freeze-trunk", "--train-last 1", "--lora 2", "--warm-head 2", "--prompt 3"]
)
def test_a_rung_has_the_results_of_train_py(study, run, checkpoint, texts, flags):
    flags += " --epochs 2"
    status, _, error = run(
        "train", "--weights", checkpoint, "--data", texts, "--out", "run", *flags.split(), "--quiet"
    )
    assert status == 0, error
    with open("run/metrics.json") as file:
        metrics = json.load(file)
    trainable, logits = ladder.train_and_test(study, flags, study.tokens["train"])
    right = (logits.argmax(1) == study.classes["test"]).double().mean().item()
    assert trainable == metrics["freezing"]["learning"]
    assert right == metrics["test"]["accuracy"]
    loss = torch.nn.functional.cross_entropy(logits, study.classes["test"]).item()
    assert loss == pytest.approx(metrics["test"]["loss"], rel=1e-3)


def test_logits_are_stored_until_what_they_depend_on_changes_or_they_are_damaged(
    study, monkeypatch, own_cache
):
    train, runs, tune = study.tokens["train"], [], ladder.tune
    monkeypatch.setattr(ladder, "tune", lambda *job: runs.append(1) or tune(*job))

    def logits(flags, texts):
        return ladder.train_and_test(study, flags, texts)[1]

    first = logits("--train-last 1 --epochs 1", train)
    torch.testing.assert_close(logits("--train-last 1 --epochs 1", train), first)
    assert len(runs) == 1
    logits("--train-last 1 --epochs 2", train)
    logits("--train-last 1 --epochs 1", dataclasses.replace(train, labels=1 - train.labels))
    assert len(runs) == 3
    for file in own_cache.rglob("states.npy"):
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    torch.testing.assert_close(logits("--train-last 1 --epochs 1", train), first)
    assert len(runs) == 4


def test_samples_have_whole_pairs_and_balanced_labels(real):
    few = sample(real.examples("train"), 30, 1)
    assert len(few) == 30 and sum(e.label == "positive" for e in few) == 15
    assert len({e.pair for e in few}) == 15
    assert few != sample(real.examples("train"), 30, 2)


def same(study, key) -> np.ndarray:  # -> (N,)
    """Return for which texts of test the other of the pair has the same `key` of its token ids."""
    ids = study.tokens["test"].ids
    return np.repeat([key(a) == key(b) for a, b in zip(ids[::2], ids[1::2], strict=True)], 2)


def right(study, vectors) -> np.ndarray:  # -> (N,)
    logits = vectors["test"].float() @ study.probe(vectors).T
    return (logits.argmax(1) == study.classes["test"]).numpy()


def test_the_rating_can_be_read_at_the_last_token_and_not_at_the_first(real):
    top = real.layers - 1
    last, first = right(real, real.at(top, -1)), right(real, real.at(top, 0))
    assert last.mean() >= first.mean() + 0.15
    alike = same(real, lambda ids: ids[0])
    assert alike.sum() >= 40 and first[alike].mean() == 0.5  # exactly: one of two


def test_less_can_be_read_from_words_alone_and_random_weights(real, monkeypatch):
    monkeypatch.setattr(controls, "SEEDS", (0,))
    monkeypatch.setattr(controls, "SHUFFLES", 4)
    result = controls.measure(real)
    rows = result["rows"]
    assert rows["last_word"]["accuracy"] == 0.5
    for row, times in (("random", 1), ("random_mean", 1), ("shuffled", 4)):
        low, high = rows[row]["accuracy_range"]
        assert low <= rows[row]["accuracy"] <= high and rows[row]["times"] == times
        assert "interval" not in rows[row] and rows[row]["against"]["interval"][1] < 0
    assert rows["trained"]["interval"][0] > 0.6
    points = rows["random"]["accuracy"] - rows["trained"]["accuracy"]
    assert rows["random"]["against"]["points"] == pytest.approx(points)
    assert "range of 4 shuffles" in str(result["table"]["rows"])


def test_without_attention_only_position_and_token_are_left(real, monkeypatch):
    monkeypatch.setattr(knock_out, "WINDOWS", (1,))
    monkeypatch.setattr(studies, "HEAD_RECIPE", dataclasses.replace(HEAD_RECIPE, epochs=8))
    rows = knock_out.measure(real)["rows"]
    whole, none = rows["nothing_0"], rows["from_1"]
    assert none["accuracy"] == rows["up_to_6"]["accuracy"] == rows["window_1"]["accuracy"] < 0.6
    assert whole["accuracy"] > none["accuracy"] + 0.15 and none["against"]["interval"][1] < 0
    assert rows["mean_from_1"]["accuracy"] == rows["mean_up_to_6"]["accuracy"] < 0.6
    means = heads_of(real, real.tokens["train"]).mean(0)
    vectors = {s: knock_out.knocked_out(real, t, means)[:, 1] for s, t in real.tokens.items()}
    alike = same(real, lambda ids: (len(ids), ids[-1]))  # all that is left: the place and the word
    assert alike.sum() >= 10 and right(real, vectors)[alike].mean() == 0.5


def test_the_last_vector_of_the_top_moves_all_of_the_score_and_the_same_embedding_none_of_it(
    real, monkeypatch
):
    monkeypatch.setattr(patching, "PAIRS", 12)
    result = patching.measure(real)
    moved = np.array(result["moved"])  # (L + 1, P)
    assert moved.shape == (real.layers, 16) and result["pairs"] == 12
    assert abs(moved[-1, -1] - 1) < 1e-3 and np.abs(moved[-1, :-1]).max() < 1e-3
    assert abs(moved[0, -1]) < 0.05  # both texts end with the same word
    assert patching.draw(result).axes and "by construction" in result["finding"]
    result = heads.measure(real)
    rises = np.diff(moved[:, -1])
    assert result["block"] == 1 + rises.argmax() and len(result["heads"]) == 4
    for head in result["heads"]:
        assert 0 <= head["differing"] + head["first"] + head["itself"] <= 1.0001
    assert sum(head["moved"] for head in result["heads"]) == pytest.approx(
        result["together"], abs=0.2
    )  # but for what the MLP makes of them
    assert heads.draw(result).axes


def test_the_language_model_rates_texts_by_its_own_next_word(real, monkeypatch):
    monkeypatch.setattr(words, "TEMPLATES", (" It was", " The film was"))
    result = words.measure(real)
    assert result["chosen"] in result["templates"] and len(result["templates"]) == 2
    assert result["best"]["accuracy"] > 0.65 and result["best"]["pairs"] > 0.75
    assert words.draw(result).axes


def fewer(monkeypatch) -> None:
    """Leave out repetitions that a test need not wait for."""
    monkeypatch.setattr(controls, "SEEDS", (0, 1))
    monkeypatch.setattr(ladder, "RUNGS", {key: ladder.RUNGS[key] for key in ("head", "last_1")})
    monkeypatch.setattr(ladder, "SIZES", (10,))
    monkeypatch.setattr(ladder, "SAMPLES", 1)
    monkeypatch.setattr(where, "FROM_END", 3)
    monkeypatch.setattr(where, "FROM_START", 2)


def test_explain_runs_and_runs_again(run, checkpoint, texts, monkeypatch, tmp_path):
    fewer(monkeypatch)
    command = ("explain", "--weights", checkpoint, "--data", texts, "--out", "out")
    status, out, error = run(*command)
    assert status == 0, error
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert [*results["experiments"]] == [*EXPERIMENTS]
    assert "no pairs" in results["experiments"]["patching"]["skipped"]
    assert "patching   skipped: " in out
    drawn = [n for n, result in results["experiments"].items() if "skipped" not in result]
    wanted = {f"{name}.{kind}" for name in drawn for kind in ("png", "svg")}
    assert files_of(tmp_path / "out") == wanted | {"results.json", "index.html"}
    for name in drawn:
        result = results["experiments"][name]
        assert result["question"].endswith("?") and result["finding"] and result["headline"]
        table = result["table"]
        assert all(len(row) == len(table["columns"]) for row in table["rows"])
    pictures = {file: (tmp_path / "out" / file).read_bytes() for file in wanted}
    monkeypatch.setattr(ladder, "tune", None)  # all of it is stored
    monkeypatch.setattr(studies, "fit_probe", None)
    assert run(*command)[0] == 0
    again = json.loads((tmp_path / "out/results.json").read_text())
    for one in (results, again):
        del one["about"]["seconds"]
        for experiment in one["experiments"].values():
            del experiment["seconds"]
    assert again == results
    assert pictures == {file: (tmp_path / "out" / file).read_bytes() for file in wanted}


def test_explain_takes_what_comes(run, checkpoint, tmp_path, monkeypatch):
    """Three classes, a dozen texts, an empty one, and one longer than the context."""
    fewer(monkeypatch)
    rows = [f"good {'tin ' * (i % 9)}{i}\t{'abc'[i % 3]}" for i in range(60)]
    rows += ["\ta", f"{'bad ' * 500}\tb"]
    (tmp_path / "few.tsv").write_text("\n".join(rows), encoding="utf-8")
    status, _, error = run("explain", "--weights", checkpoint, "--data", "few.tsv")
    assert status == 0, error
    results = json.loads((tmp_path / "explain/results.json").read_text())["experiments"]
    assert {name for name in results if "skipped" in results[name]} == {
        "patching",
        "heads",
        "words",
        "reading",
        "arrival",
    }
    assert results["where"]["starts"] == [0, 1]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--only", "pooling,cats"], "--only cats: no such experiment; there are pooling, where,"),
        (["--out", "texts.tsv"], "is a file, not a folder"),
        (["--out", "."], "has no results.json of an earlier result"),
        (["--data", "nowhere"], "no such file"),
        (["--only", "pooling,ladder", "--quick"], "--quick leaves out the ladder, which --only"),
        (["--only", "where", "--text", "a text"], "--text is for the experiment `reading`"),
    ],
)
def test_explain_says_what_is_wrong(run, checkpoint, texts, flags, said):
    status, _, error = run("explain", "--weights", checkpoint, "--data", texts, *flags)
    assert status == 2
    assert error.startswith("error: ") and error.count("\n") == 1 and said in error


def test_without_matplotlib_explain_ends_at_once_in_one_line(run, checkpoint, texts, monkeypatch):
    monkeypatch.setattr(figures.importlib.util, "find_spec", lambda name: None)
    status, out, error = run("explain", "--weights", checkpoint, "--data", texts)
    assert (status, out) == (2, "") and error.count("\n") == 1
    assert "pip install matplotlib" in error and "minigpt[explain]" in error


def test_only_drawing_needs_matplotlib():
    code = "import sys; import minigpt.explain.run; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_last_token_has_the_accuracy_of_train_py(run, checkpoint, texts):
    flags = ("--weights", checkpoint, "--data", texts)
    assert run("train", "--freeze-trunk", *flags, "--out", "run", "--quiet")[0] == 0
    assert run("explain", *flags, "--only", "pooling", "--out", "out")[0] == 0
    with open("run/metrics.json") as metrics, open("out/results.json") as results:
        theirs, ours = json.load(metrics)["test"], json.load(results)["experiments"]["pooling"]
    assert ours["ways"]["last"]["accuracy"] == theirs["accuracy"]


def test_findings_say_on_which_side_of_chance():
    assert versus_chance({"interval": (0.4, 0.6)}, 0.5) == "not distinguishable from chance"
    assert versus_chance({"interval": (0.51, 0.6)}, 0.5) == "above chance"
    assert versus_chance({"interval": (0.3, 0.4)}, 0.5) == "below chance"
