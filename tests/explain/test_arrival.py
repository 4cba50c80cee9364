"""The rating while the trunk learns: by what it is told from other weights, and what is claimed."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from conftest import ROOT, random_trunk
from transformers import GPT2LMHeadModel

from minigpt.checkpoints import find_checkpoint
from minigpt.data import Tokens
from minigpt.edge.errors import InputError
from minigpt.explain import arrival, snapshots
from minigpt.explain.study import open_study
from minigpt.weights import save_trunk


@pytest.fixture
def pretrained(checkpoint):
    """Give a checkpoint with snapshots beside it, each of other weights."""
    for seed, tokens in enumerate((0, 1000, 20000), 1):
        save_trunk(random_trunk(seed), checkpoint / "state" / str(tokens), torch.float16)
    (checkpoint / "history.jsonl").write_text('{"tokens": 500}\n{"tokens": 3000}\n')
    ids = np.random.default_rng(0).integers(0, 250, 64 * 12).astype(np.uint16)
    np.save(checkpoint / "state" / "held_out.npy", ids)
    return checkpoint


def open_quietly(checkpoint, texts):
    return open_study(str(checkpoint), str(texts), "cpu", quiet=True)


def stored(checkpoint) -> dict:
    return json.loads((checkpoint / "arrival.json").read_text(encoding="utf-8"))


def test_what_is_measured_is_that_of_each_snapshot(pretrained, texts):
    """The last point is what the checkpoint gives by itself; what came after it is left out."""
    study = open_quietly(pretrained, texts)
    result = arrival.measure(study)
    points = stored(pretrained)["sets"]["texts"]["points"]
    assert points == result["sets"]["texts"]["points"]
    assert [point["tokens"] for point in points] == [0, 1000, 3000]
    own = study.probe_accuracy({s: study.pooled(t) for s, t in study.tokens.items()})
    assert points[-1]["last"]["accuracy"] == pytest.approx(own["accuracy"], abs=1e-4)
    shutil.copy(pretrained / "state/1000/model.safetensors", pretrained)
    other = open_quietly(pretrained, texts)
    own = other.probe_accuracy({s: other.pooled(t) for s, t in other.tokens.items()})
    assert points[1]["last"]["accuracy"] == pytest.approx(own["accuracy"], abs=1e-4)
    assert result["finding"] and arrival.draw(result).axes
    assert all(len(row) == len(result["table"]["columns"]) for row in result["table"]["rows"])


def test_vectors_are_stored_by_what_is_in_a_snapshots_file(pretrained, texts):
    """Other weights under the same name are read again."""
    study = open_quietly(pretrained, texts)

    def vectors_at(tokens):
        checkpoint = snapshots.snapshots_of(study.checkpoint)[tokens]
        trunk = snapshots.load_trunk(checkpoint.folder)
        then = dataclasses.replace(study, trunk=trunk, checkpoint=checkpoint)
        return then.pooled(study.tokens["test"]), trunk

    before, _ = vectors_at(1000)
    save_trunk(random_trunk(7), pretrained / "state" / "1000", torch.float16)
    after, trunk = vectors_at(1000)
    assert (before - after).abs().max() > 0.1
    ids = torch.from_numpy(study.tokens["test"].ids[0])[None]
    with torch.no_grad():
        torch.testing.assert_close(after[0], trunk(ids)[0, -1], atol=1e-4, rtol=1e-4)


def test_the_loss_is_that_of_transformers(pretrained, texts):
    ids = np.load(pretrained / "state" / "held_out.npy").astype(np.int64)
    theirs = GPT2LMHeadModel.from_pretrained(pretrained).eval()
    rows = torch.from_numpy(np.stack([ids[i : i + 65] for i in range(0, 64 * 11, 64)]))
    with torch.no_grad():
        log_p = theirs(rows[:, :-1]).logits.log_softmax(-1)
    loss = -log_p.gather(2, rows[:, 1:, None]).mean().item()
    assert snapshots.loss_on(open_quietly(pretrained, texts), ids) == pytest.approx(loss, rel=1e-5)


def test_at_the_first_token_equal_tokens_have_equal_vectors(checkpoint, texts):
    study = open_quietly(checkpoint, texts)
    ids = [np.array(ids) for ids in ([40, 41, 42], [50, 41], [40, 60, 61, 62, 63])]
    vectors = snapshots.at_first_token(study, Tokens(ids, torch.zeros(3, dtype=torch.long)))
    whole = study.pooled(Tokens(ids, torch.zeros(3, dtype=torch.long)), "first")
    torch.testing.assert_close(vectors, whole, atol=1e-4, rtol=1e-4)
    assert torch.equal(vectors[0], vectors[2]) and not torch.equal(vectors[0], vectors[1])


def test_results_stay_by_data_set_until_the_weights_are_others(pretrained, texts, run, tmp_path):
    shutil.copy(texts, tmp_path / "other.tsv")
    for data in (texts, tmp_path / "other.tsv"):
        flags = ("--weights", pretrained, "--data", data, "--only", "arrival", "--out", "out")
        status, _, error = run("explain", *flags)
        assert status == 0, error
    sets = stored(pretrained)["sets"]
    assert [*sets] == ["texts", "other"] and sets["texts"]["points"] == sets["other"]["points"]
    command = "python -m minigpt explain --weights checkpoint --data other --only arrival"
    assert sets["other"]["command"] == command and str(tmp_path) not in json.dumps(sets)

    shutil.move(pretrained / "state", tmp_path / "elsewhere")  # as it is where it was cloned
    result = arrival.measure(open_quietly(pretrained, texts))
    assert result["sets"] == sets
    save_trunk(random_trunk(9), pretrained)
    result = arrival.measure(open_quietly(pretrained, texts))
    assert "no snapshots of its pre-training, nor arrival.json" in result["skipped"]


def test_a_trunk_without_both_is_skipped_and_nothing_is_written(run, checkpoint, texts):
    status, out, error = run(
        "explain", "--weights", checkpoint, "--data", texts, "--only", "arrival"
    )
    assert status == 0, error
    assert "arrival    skipped: " in out and not (checkpoint / "arrival.json").exists()


def test_a_snapshot_of_another_model_and_a_damaged_file_are_said_in_a_line(pretrained, texts):
    study = open_quietly(pretrained, texts)
    save_trunk(random_trunk(n_layer=2), pretrained / "state" / "1000")
    with pytest.raises(InputError, match="1000"):
        arrival.measure(study)
    shutil.rmtree(pretrained / "state")
    for text, said in (("{", "not JSON"), ('{"weights": 3}', "weights is 3, not a text")):
        (pretrained / "arrival.json").write_text(text)
        with pytest.raises(InputError, match=said):
            arrival.measure(study)


# --- what is claimed, on made-up numbers ---


def made_up(plain: list, negation: list) -> list[dict]:
    """Return points with these shares of pairs in order: (share, low, high) at each of them."""
    points = []
    for i, pair in enumerate(zip(plain, negation, strict=True)):
        kinds = {
            kind: {"n": 36, "accuracy": share, "pairs": share, "pairs_interval": [low, high]}
            for kind, (share, low, high) in zip(arrival.KINDS, pair, strict=True)
        }
        points.append({"tokens": i * 10**6, "last": {"kinds": kinds}})
    return points


NOT_YET, UNCLEAR, GOOD, WRONG = (0.5, 0.5, 0.5), (0.6, 0.4, 0.8), (0.9, 0.85, 0.95), (0.2, 0.1, 0.4)


@pytest.mark.parametrize(
    ("plain", "negation", "said"),
    [
        ([NOT_YET, GOOD, GOOD], [NOT_YET, WRONG, GOOD], "single words comes first: the intervals "
         "are apart at 1 million"),
        ([NOT_YET, GOOD, GOOD], [NOT_YET, NOT_YET, WRONG], "(10.0 to 40.0), below chance and"),
        ([NOT_YET, NOT_YET, GOOD], [NOT_YET, GOOD, GOOD], "a negation turns around comes first"),
        ([NOT_YET, GOOD, UNCLEAR], [NOT_YET, (0.8, 0.6, 1), UNCLEAR], "is not to be told"),
        ([GOOD, GOOD], [WRONG, WRONG], "is not to be told"),  # what was there did not arrive
    ],
)  # fmt: skip
def test_one_kind_comes_first_only_where_intervals_are_apart(plain, negation, said):
    assert said in arrival.which_is_first(made_up(plain, negation))


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        (
            [NOT_YET, GOOD, UNCLEAR, GOOD, GOOD],
            "clearly above its start from 3 million tokens on",
        ),
        ([WRONG, (0.49, 0.45, 0.49), GOOD], "clearly above its start from 2 million tokens on"),
        ([GOOD, GOOD], "above chance and not clearly above its start"),
        ([GOOD, UNCLEAR], "not distinguishable from chance and not clearly above its start"),
        ([GOOD, WRONG], "below chance and not clearly above its start"),
    ],
)
def test_a_share_has_arrived_when_it_stays_above_chance_and_its_start(shares, said):
    points = made_up(shares, shares)
    assert arrival.since(points, arrival.curve(points, "last", "plain"), 0.5).endswith(said)


def test_the_bundled_file_is_of_the_bundled_weights():
    checkpoint = find_checkpoint("tiny")
    if not (ROOT / "weights/tiny/arrival.json").exists():
        pytest.skip("weights/tiny has no arrival.json: its snapshots have not been measured")
    sets = snapshots.stored_sets(checkpoint)
    assert {*sets} >= {"mirrored", "sst2"}, "measure the data set again: it is of other weights"
    study = snapshots.with_all_texts(open_study("tiny", "mirrored", "cpu", quiet=True))
    own = study.probe_accuracy({s: study.pooled(t) for s, t in study.tokens.items()})
    last = sets["mirrored"]["points"][-1]["last"]
    assert last["accuracy"] == pytest.approx(own["accuracy"], abs=0.005)  # another CPU rounds
    assert last["pairs"] == pytest.approx(own["pairs"], abs=0.01)
    assert sets["mirrored"]["texts"] == {s: len(texts) for s, texts in study.tokens.items()}
