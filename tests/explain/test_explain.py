"""The experiments: probes held against scikit-learn, interventions against cases whose answer is
known, and against the long way round.
"""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from conftest import files_of, random_trunk
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from transformers import GPT2LMHeadModel

from minigpt.data import Tokens
from minigpt.explain import bench as benches
from minigpt.explain import experiments, ladder, travel, words
from minigpt.explain.bench import open_bench, sample
from minigpt.explain.findings import against_chance
from minigpt.explain.interventions import attending, last_again, patched, read_whole, seeing_last
from minigpt.explain.plots import PLOTS
from minigpt.explain.probes import bootstrap_interval, fit_probe
from minigpt.explain.run import EXPERIMENTS
from minigpt.explain.states import PLACES
from minigpt.metrics import wilson_interval
from minigpt.model import attention

IDS = torch.arange(2 * 9).view(2, 9) % 7 + 40  # two texts of nine tokens


@pytest.fixture
def bench(checkpoint, texts):
    """Give a small random trunk and texts whose rating is one word, anywhere in them."""
    return open_bench(str(checkpoint), str(texts), "cpu", quiet=True)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Give the bundled trunk and a part of the bundled pairs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINIGPT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(benches, "AT_MOST", {"train": 400, "dev": 60, "test": 200})
        yield open_bench("tiny", "mirrored", "cpu", quiet=True)


def clouds(classes: int, n: int, seed: int):
    """Return vectors of classes that overlap, on channels of very different size, and labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=n)
    x = random.normal(size=(n, 20))
    x[:, :classes] += 1.5 * np.eye(classes)[labels]
    return torch.from_numpy(x * np.geomspace(1e-3, 1e3, 20) + 5), torch.from_numpy(labels)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_probe_is_scikit_learns_logistic_regression(classes):
    parts = [clouds(classes, n, seed) for n, seed in ((300, 0), (100, 1), (200, 2))]
    probe = fit_probe(*parts[0], *parts[1], classes)
    mean, spread = parts[0][0].mean(0), parts[0][0].std(0, correction=0)
    x, x_test = (((part[0] - mean) / spread).numpy() for part in (parts[0], parts[2]))
    oracle = LogisticRegression(C=1 / probe.l2, tol=1e-10, max_iter=10_000)
    oracle = (oracle if classes == 2 else OneVsRestClassifier(oracle)).fit(x, parts[0][1])
    ours = probe.logits(parts[2][0])
    assert ours.shape == (200, classes)
    theirs = oracle.decision_function(x_test)
    np.testing.assert_allclose(ours[:, 1:].squeeze(1) if classes == 2 else ours, theirs, atol=1e-4)


def test_a_probe_agrees_with_scikit_learn_on_hidden_states_where_both_choose_the_penalty(real):
    vectors = real.at(real.layers - 1, -1)
    mean, spread = vectors["train"].mean(0), vectors["train"].std(0, correction=0)
    x = {split: ((part - mean) / spread).double().numpy() for split, part in vectors.items()}
    y = {split: labels.numpy() for split, labels in real.classes.items()}
    fits = [
        LogisticRegression(C=1 / l2, max_iter=5000).fit(x["train"], y["train"])
        for l2 in (1e3, 300, 100, 30, 10)
    ]
    best = max(
        fits,
        key=lambda fit: fit.predict_log_proba(x["dev"])[np.arange(len(y["dev"])), y["dev"]].mean(),
    )
    assert real.accuracy(vectors)["accuracy"] == pytest.approx(
        best.score(x["test"], y["test"]), abs=0.005
    )


def test_a_probe_bears_a_constant_channel_and_a_single_class():
    x, y = clouds(2, 50, 0)
    x[:, 3] = 7.0
    probe = fit_probe(x, y, x, y, 2)
    assert probe.logits(x).isfinite().all() and probe.weight.abs().max() < 1e6
    assert (fit_probe(x, y * 0, x, y, 2).logits(x)[:, 1] < 0).all()


def test_an_interval_draws_pairs_whole_and_is_the_same_each_time():
    right = np.array([1, 1, 0, 1, 0, 1, 1, 1, 0, 1] * 40)
    alone = bootstrap_interval(right, np.arange(400))
    assert alone == pytest.approx(wilson_interval(right.sum(), 400), abs=0.01)
    assert alone == bootstrap_interval(right, np.arange(400))
    double = bootstrap_interval(np.repeat(right, 2), np.repeat(np.arange(400), 2))
    assert double == pytest.approx(alone, abs=0.01)  # twice the same is no more to know
    one_of_two = bootstrap_interval(np.tile([0, 1], 50), np.repeat(np.arange(50), 2))
    assert one_of_two == (0.5, 0.5)


def test_states_are_those_of_transformers_and_of_each_text_alone(bench, checkpoint):
    theirs = GPT2LMHeadModel.from_pretrained(checkpoint).eval()
    texts, states = bench.tokens["test"], bench.states("test")
    for i in range(0, len(texts), 5):
        ids = torch.from_numpy(texts.ids[i])[None]
        with torch.no_grad():
            hidden = theirs(ids, output_hidden_states=True).hidden_states
        for layer, x in enumerate(hidden):
            for place in (-1, -3, 0, 5, -16):
                found = states.at(layer, place)[i]
                if -len(ids[0]) <= place < len(ids[0]):
                    torch.testing.assert_close(found, x[0, place], atol=1e-4, rtol=1e-4)
                else:
                    assert found.isnan().all()
            mean = states.at(layer, "mean")[i]
            torch.testing.assert_close(mean, x[0].mean(0), atol=1e-4, rtol=1e-4)
    assert len(PLACES) == states.array.shape[2]


def test_states_are_kept(bench, monkeypatch):
    before = bench.states("dev").at(2, -1)
    monkeypatch.setattr(benches, "every_layer", None)  # computing them again would fail
    again = dataclasses.replace(bench)
    torch.testing.assert_close(again.states("dev").at(2, -1), before, equal_nan=True)


def test_the_classic_mistake_reads_a_pad(bench):
    texts = bench.tokens["test"]
    padded = experiments.padded_in_order(bench, texts, size=4)
    ids = [torch.from_numpy(text) for text in texts.ids[4:8]]
    batch = torch.nn.utils.rnn.pad_sequence(ids, True, bench.tokenizer.eot_token)
    with torch.no_grad():
        wrong = bench.trunk(batch)[:, -1]
    torch.testing.assert_close(bench.pooled(padded)[4:8], wrong, atol=1e-4, rtol=1e-4)


def test_knocking_out_nothing_changes_nothing():
    trunk = random_trunk()
    whole = read_whole(trunk, IDS)
    torch.testing.assert_close(last_again(trunk, whole), whole.layers[-1][:, -1])
    with attending(trunk, range(3), seeing_last(9)):
        torch.testing.assert_close(last_again(trunk, whole), whole.layers[-1][:, -1])


def test_a_token_that_sees_only_itself_knows_nothing_of_the_others():
    trunk, other = random_trunk(), IDS.clone()
    other[:, :-1] += 1
    with attending(trunk, range(3), seeing_last(1)):
        cut = [last_again(trunk, read_whole_plainly(trunk, ids)) for ids in (IDS, other)]
    torch.testing.assert_close(*cut)
    assert trunk.h[0].attn.attention.__module__ == "minigpt.model"  # the trunk is as it was


def read_whole_plainly(trunk, ids):
    """Read texts by the trunk's own attention, whatever it is replaced by just now."""
    before = [block.attn.attention for block in trunk.h]
    for block in trunk.h:
        block.attn.attention = attention
    whole = read_whole(trunk, ids)
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

    with attending(trunk, blocks, masked):
        long_way = trunk(IDS)[:, -1]
    whole = read_whole(trunk, IDS)
    with attending(trunk, blocks, seeing_last(w)):
        torch.testing.assert_close(last_again(trunk, whole), long_way, atol=1e-5, rtol=1e-5)


def test_patching_a_text_with_itself_changes_nothing():
    trunk = random_trunk()
    whole = read_whole(trunk, IDS)
    for layer in range(4):
        for token in (0, 4, 8):
            own = whole.layers[layer][:, token, None]
            found = patched(trunk, whole, layer, token, own)
            torch.testing.assert_close(found, whole.layers[-1][:, -1])


def test_patching_every_token_at_layer_0_or_the_last_at_the_top_gives_the_twin():
    trunk = random_trunk()
    whole, twin = read_whole(trunk, IDS), read_whole(trunk, IDS.flip(0))
    theirs = twin.layers[-1][:, -1]
    torch.testing.assert_close(patched(trunk, whole, 0, 0, twin.layers[0]), theirs)
    torch.testing.assert_close(patched(trunk, whole, 3, 8, twin.layers[3][:, -1:]), theirs)


@torch.no_grad()
@pytest.mark.parametrize(("layer", "token"), [(0, 2), (1, 8), (2, 5)])
def test_patching_is_a_hook_before_a_block(layer, token):
    trunk, vector = random_trunk(), torch.linspace(-1, 1, 24)
    short_way = patched(trunk, read_whole(trunk, IDS), layer, token, vector.expand(2, 1, -1))

    def put(_, args):
        args[0][:, token] = vector

    trunk.h[layer].register_forward_pre_hook(put)
    torch.testing.assert_close(short_way, trunk(IDS)[:, -1], atol=1e-5, rtol=1e-5)


def test_twins_are_patched_with_each_other(bench):
    ids = [np.arange(n) % 200 for n in (16, 20, 18, 17)]
    twins = np.array([1, 0, 3, 2])
    tokens = Tokens(ids, torch.tensor([0, 1, 1, 0]))
    found = travel.patched_vectors(bench, tokens, twins, [-2, -1])
    whole = bench.pooled(tokens)
    torch.testing.assert_close(torch.tensor(found[:, -1, 1]), whole[twins], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(torch.tensor(found[:, -1, 0]), whole, atol=1e-4, rtol=1e-4)
    own = read_whole(bench.trunk, torch.from_numpy(ids[1])[None])
    theirs = read_whole(bench.trunk, torch.from_numpy(ids[0])[None])
    by_hand = patched(bench.trunk, own, 1, 18, theirs.layers[1][:, -2:-1])
    torch.testing.assert_close(torch.tensor(found[1, 1, 0]), by_hand[0], atol=1e-4, rtol=1e-4)


def test_a_preference_is_the_language_models_own(bench, checkpoint):
    theirs = GPT2LMHeadModel.from_pretrained(checkpoint).eval()
    good, bad = {"good": 266}, {"bad": 300 - 33, "in": 258}
    scores = words.preferences(bench, "dev", good, bad)
    assert scores.shape == (len(bench.tokens["dev"]), len(words.TEMPLATES))
    for i in (0, 3):
        prompt = bench.tokenizer.encode_ordinary(words.TEMPLATES[1])
        ids = torch.tensor([[*bench.tokens["dev"].ids[i], *prompt]])
        with torch.no_grad():
            p = theirs(ids).logits[0, -1].softmax(-1)
        odds = (p[266] / (p[267] + p[258])).log()
        assert scores[i, 1].item() == pytest.approx(odds.item(), abs=1e-3)


@pytest.mark.parametrize(
    "flags", ["--freeze-trunk", "--train-last 1", "--lora 2", "--warm-head 2", "--prompt 3"]
)
def test_a_rung_is_what_train_comes_to(bench, run, checkpoint, texts, flags):
    flags += " --epochs 2"
    status, _, error = run(
        "train", "--weights", checkpoint, "--data", texts, "--out", "run", *flags.split(), "--quiet"
    )
    assert status == 0, error
    with open("run/metrics.json") as file:
        metrics = json.load(file)
    learning, logits = ladder.outcome(bench, flags, bench.tokens["train"])
    right = (logits.argmax(1) == bench.classes["test"]).double().mean().item()
    assert learning == metrics["freezing"]["learning"]
    assert right == metrics["test"]["accuracy"]
    loss = torch.nn.functional.cross_entropy(logits, bench.classes["test"]).item()
    assert loss == pytest.approx(metrics["test"]["loss"], rel=1e-3)


def test_an_outcome_is_kept_until_what_it_depends_on_changes_or_it_is_damaged(
    bench, monkeypatch, own_cache
):
    train, runs, train_model = bench.tokens["train"], [], ladder.trained
    monkeypatch.setattr(ladder, "trained", lambda *job: runs.append(1) or train_model(*job))
    first = ladder.outcome(bench, "--train-last 1 --epochs 1", train)[1]
    torch.testing.assert_close(ladder.outcome(bench, "--train-last 1 --epochs 1", train)[1], first)
    assert len(runs) == 1
    ladder.outcome(bench, "--train-last 1 --epochs 2", train)
    flipped = dataclasses.replace(train, labels=1 - train.labels)
    ladder.outcome(bench, "--train-last 1 --epochs 1", flipped)
    assert len(runs) == 3
    for file in own_cache.rglob("states.npy"):
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    torch.testing.assert_close(ladder.outcome(bench, "--train-last 1 --epochs 1", train)[1], first)
    assert len(runs) == 4


def test_samples_keep_twins_together_and_labels_balanced(real):
    few = sample(real.examples("train"), 30, 1)
    assert len(few) == 30 and sum(e.label == "positive" for e in few) == 15
    assert len({e.pair for e in few}) == 15
    assert few != sample(real.examples("train"), 30, 2)


def same(bench, key) -> np.ndarray:  # -> (N,)
    """Return which texts of test have a twin for which `key` of its token ids is the same."""
    ids = bench.tokens["test"].ids
    return np.repeat([key(a) == key(b) for a, b in zip(ids[::2], ids[1::2], strict=True)], 2)


def right(bench, vectors) -> np.ndarray:  # -> (N,)
    logits = bench.probe(vectors).logits(vectors["test"])
    return (logits.argmax(1) == bench.classes["test"]).numpy()


def test_the_last_token_knows_what_the_first_cannot(real):
    top = real.layers - 1
    last, first = right(real, real.at(top, -1)), right(real, real.at(top, 0))
    assert last.mean() >= first.mean() + 0.15
    alike = same(real, lambda ids: ids[0])
    assert alike.sum() >= 40 and first[alike].mean() == 0.5  # exactly: one of two


def test_words_alone_and_random_weights_know_less(real):
    found = experiments.controls(real)["rows"]
    assert found["last_word"]["accuracy"] == 0.5
    for row in ("random", "shuffled"):
        low, high = found[row]["interval"]
        assert low <= 0.5 <= high, row
    assert found["trained"]["interval"][0] > 0.6


def test_without_attention_nothing_of_the_text_arrives(real):
    rows = travel.knock_out(real)["rows"]
    whole, none = rows["nothing_0"], rows["from_0"]
    assert none["accuracy"] == rows["up_to_5"]["accuracy"] == rows["window_1"]["accuracy"] < 0.6
    assert whole["accuracy"] > none["accuracy"] + 0.15
    vectors = {
        s: torch.from_numpy(travel.cut_vectors(real, t)[:, 1]) for s, t in real.tokens.items()
    }
    alike = same(real, lambda ids: (len(ids), ids[-1]))  # all that is left: the place and the word
    assert alike.sum() >= 10 and right(real, vectors)[alike].mean() == 0.5


def test_the_last_vector_of_the_top_is_the_verdict_and_the_embedding_of_a_common_word_is_none_of_it(
    real, monkeypatch
):
    monkeypatch.setattr(travel, "PAIRS", 12)
    found = travel.patching(real)
    moved = np.array(found["moved"])  # (L + 1, places)
    assert moved.shape == (real.layers, 16) and found["pairs"] == 12
    assert abs(moved[-1, -1] - 1) < 1e-3 and np.abs(moved[-1, :-1]).max() < 1e-3
    assert abs(moved[0, -1]) < 0.05  # twins end with the same word
    assert PLOTS["patching"](found, {}).axes


def test_the_language_model_rates_texts_by_its_own_next_word(real, monkeypatch):
    monkeypatch.setattr(words, "TEMPLATES", (" It was", " The film was"))
    found = words.words(real)
    assert found["chosen"] in found["templates"] and len(found["templates"]) == 2
    assert found["best"]["accuracy"] > 0.65 and found["best"]["pairs"] > 0.75
    assert PLOTS["words"](found, {}).axes


def fewer(monkeypatch) -> None:
    """Leave out repetitions that a test need not wait for."""
    monkeypatch.setattr(ladder, "RUNGS", {key: ladder.RUNGS[key] for key in ("head", "last_1")})
    monkeypatch.setattr(ladder, "SIZES", (10,))
    monkeypatch.setattr(ladder, "DRAWS", 1)
    monkeypatch.setattr(experiments, "FROM_END", 3)
    monkeypatch.setattr(experiments, "FROM_START", 2)


def test_explain_runs_and_runs_again(run, checkpoint, texts, monkeypatch, tmp_path):
    fewer(monkeypatch)
    command = ("explain", "--weights", checkpoint, "--data", texts, "--out", "found")
    status, out, error = run(*command)
    assert status == 0, error
    results = json.loads((tmp_path / "found/results.json").read_text())
    assert [*results["experiments"]] == [*EXPERIMENTS]
    assert "no pairs" in results["experiments"]["patching"]["skipped"]
    assert "patching   skipped: " in out
    drawn = [n for n, result in results["experiments"].items() if "skipped" not in result]
    wanted = {f"{name}.{kind}" for name in drawn for kind in ("png", "svg")}
    assert files_of(tmp_path / "found") == wanted | {"results.json", "index.html"}
    for name in drawn:
        found = results["experiments"][name]
        assert found["question"].endswith("?") and found["finding"] and found["headline"]
        assert all(len(row) == len(found["table"]["columns"]) for row in found["table"]["rows"])
    pictures = {file: (tmp_path / "found" / file).read_bytes() for file in wanted}
    monkeypatch.setattr(ladder, "trained", None)  # all of it is kept
    assert run(*command)[0] == 0
    again = json.loads((tmp_path / "found/results.json").read_text())
    for found in (results, again):
        del found["about"]["seconds"]
        for experiment in found["experiments"].values():
            del experiment["seconds"]
    assert again == results
    assert pictures == {file: (tmp_path / "found" / file).read_bytes() for file in wanted}
    assert set(PLOTS) == set(EXPERIMENTS)


def test_explain_takes_what_comes(run, checkpoint, tmp_path, monkeypatch):
    """Three classes, a dozen texts, an empty one, and one longer than the context."""
    fewer(monkeypatch)
    rows = [f"good {'tin ' * (i % 9)}{i}\t{'abc'[i % 3]}" for i in range(60)]
    rows += ["\ta", f"{'bad ' * 500}\tb"]
    (tmp_path / "few.tsv").write_text("\n".join(rows), encoding="utf-8")
    status, _, error = run("explain", "--weights", checkpoint, "--data", "few.tsv")
    assert status == 0, error
    found = json.loads((tmp_path / "explain/results.json").read_text())["experiments"]
    assert {name for name in found if "skipped" in found[name]} == {"patching", "words", "reading"}
    assert found["where"]["starts"] == [0, 1]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--only", "pooling,cats"], "--only cats: no such experiment; there are pooling, where,"),
        (["--out", "texts.tsv"], "is a file, not a folder"),
        (["--out", "."], "has no results.json of an earlier result"),
        (["--data", "nowhere"], "no such file"),
        (["--only", "where", "--text", "a text"], "--text is for the experiment `reading`"),
    ],
)
def test_explain_says_what_is_wrong(run, checkpoint, texts, flags, said):
    status, _, error = run("explain", "--weights", checkpoint, "--data", texts, *flags)
    assert status == 2
    assert error.startswith("error: ") and error.count("\n") == 1 and said in error


def test_findings_say_on_which_side_of_chance():
    assert against_chance({"interval": (0.4, 0.6)}, 0.5).startswith("no more than chance")
    assert against_chance({"interval": (0.51, 0.6)}, 0.5) == "more than chance"
    assert against_chance({"interval": (0.3, 0.4)}, 0.5) == "less than chance"
