"""The main job from the outside: commands, files, exit statuses, and a line for each bad input."""

import ast
import json
import shutil
from pathlib import Path

import pytest
import torch
from common import IN_INT8, POLICIES, needs_int8
from conftest import ROOT, files_of
from safetensors.torch import load_file

from minigpt.checkpoints import find_checkpoint
from minigpt.datasets import load_dataset
from minigpt.fast import int8
from minigpt.language.initialize import initialize
from minigpt.metrics import wilson_interval
from minigpt.weights import load_trunk, save_trunk


@pytest.mark.parametrize("flags", [*POLICIES, IN_INT8], ids=" ".join)
def test_a_run_can_be_opened_again_and_predicts_what_it_measured(flags, run, checkpoint, texts):
    """The test accuracy in metrics.json is that of `predict` on the same texts."""
    status, out, err = run("train", "--weights", checkpoint, "--data", texts, "--out", "r", *flags)
    assert status == 0, err
    assert files_of(Path("r")) == {
        "metrics.json",
        "run.json",
        "learned.safetensors",
        "history.jsonl",
    }
    metrics = json.loads(Path("r/metrics.json").read_text())
    assert f"test accuracy   {metrics['test']['accuracy']:.1%}" in out
    assert metrics["freezing"]["frozen_unchanged"] is True
    learned = load_file("r/learned.safetensors")
    assert sum(t.numel() for t in learned.values()) == metrics["freezing"]["learning"]
    assert (metrics["data"]["truncated"] > 0) == ("--max-length" in flags)

    test = load_dataset(str(texts), seed=0).test
    Path("test.txt").write_text("".join(e.text + "\n" for e in test), encoding="utf-8")
    status, out, err = run("predict", "r", "--file", "test.txt", "--json")
    assert status == 0, err
    answers = [json.loads(line) for line in out.splitlines()]
    assert [a["text"] for a in answers] == [e.text for e in test]
    right = sum(a["label"] == e.label for a, e in zip(answers, test, strict=True))
    assert right / len(test) == metrics["test"]["accuracy"]
    for answer in answers:
        assert set(answer["probabilities"]) == {"yes", "no"}
        assert abs(sum(answer["probabilities"].values()) - 1) < 1e-5
        assert answer["probability"] == max(answer["probabilities"].values())


def test_metrics_have_the_promised_fields_that_agree_with_each_other(run, checkpoint, texts):
    status, out, err = run("train", "--freeze-trunk", "--weights", checkpoint, "--data", texts)
    assert status == 0, err
    (folder,) = Path("runs").iterdir()
    assert folder.name == "checkpoint-texts-freeze-trunk-last"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert list(metrics) == [
        *("weights", "data", "freezing", "recipe", "dev", "test", "seconds", "peak_memory_bytes")
    ]
    data, test = metrics["data"], metrics["test"]
    assert (data["train"], data["dev"], data["test"]) == (160, 20, 20) and test["n"] == 20
    assert data["labels"] == ["no", "yes"]
    right = test["confusion"][0][0] + test["confusion"][1][1]
    assert test["accuracy"] == right / 20 and sum(map(sum, test["confusion"])) == 20
    assert test["interval"] == list(wilson_interval(right, 20))
    assert metrics["freezing"]["policy"] == "freeze-trunk"
    assert metrics["freezing"]["learning"] == 2 * 24
    recipe = metrics["recipe"]
    assert recipe["freeze_trunk"] is True and recipe["seed"] == 0
    assert (recipe["epochs"], recipe["lr"], recipe["max_length"]) == (30, 1e-2, 64)
    assert set(metrics["seconds"]) == {"load", "frozen", "fit", "test", "total"}
    assert sum(metrics["seconds"].values()) - 2 * metrics["seconds"]["total"] < 0.1
    assert metrics["peak_memory_bytes"] > 50e6
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in history] == [*range(31)]
    dev, last = metrics["dev"], history[-1]
    assert (dev["accuracy"], dev["epoch"]) == (last["dev_accuracy"], 30)
    assert dev["weight_decay"] == recipe["weight_decay"][last["head"]]
    assert f"dev accuracy    {dev['accuracy']:.1%} after epoch 30 of 30, which is kept" in out
    assert f"weight decay    {dev['weight_decay']:g}, the lowest loss on dev" in out


def test_the_same_seed_gives_the_same_run_and_the_next_run_gets_another_name(
    run, checkpoint, texts
):
    for _ in range(2):
        run("train", "--train-last", 1, "--weights", checkpoint, "--data", texts, "--epochs", 1)
    first, second = sorted(Path("runs").iterdir())
    assert second.name == first.name + "-2"
    learned = [(folder / "learned.safetensors").read_bytes() for folder in (first, second)]
    assert learned[0] == learned[1]


def test_a_frozen_run_takes_kilobytes(run, texts):
    status, out, err = run("train", "--freeze-trunk", "--weights", "tiny", "--data", texts)
    assert status == 0, err
    (folder,) = Path("runs").iterdir()
    assert sum(path.stat().st_size for path in folder.iterdir()) < 20_000
    assert "frozen tensors  unchanged, bit for bit" in out


def test_the_main_job_reads_the_rating_off_the_last_token_where_pre_training_put_it(run):
    """On mirrored, where the last token by itself is worth exactly one half."""
    tiny = find_checkpoint("tiny")
    save_trunk(initialize(load_trunk(tiny.folder)), Path("random"))
    for file in ("vocab.json", "merges.txt"):
        shutil.copy(tiny.folder / file, "random")
    tests = []
    for weights in ("tiny", "random"):
        status, _, err = run(
            "train", "--freeze-trunk", "--weights", weights, "--out", f"of-{weights}"
        )
        assert status == 0, err
        tests.append(json.loads(Path(f"of-{weights}/metrics.json").read_text())["test"])
    pre_trained, random = tests
    assert pre_trained["accuracy"] >= max(0.66, random["accuracy"] + 0.1)
    assert pre_trained["pairs"]["in_order"] > 0.75
    assert {*pre_trained["kinds"]} == {
        *("plain", "negation", "contrast", "reversal", "irony", "distance", "short")
    }


@pytest.mark.parametrize("policy", [["--freeze-trunk"], ["--train-last", "1"]], ids=" ".join)
def test_a_run_in_bfloat16_learns_the_same_to_bfloat16s_precision(policy, run, checkpoint, texts):
    flags = [*policy, "--weights", checkpoint, "--data", texts, "--dropout", 0, "--epochs", 2]
    probabilities = []
    for dtype in ("float32", "bfloat16"):
        status, _, err = run("train", *flags, "--dtype", dtype, "--out", dtype)
        assert status == 0, err
        assert json.loads(Path(dtype, "run.json").read_text())["recipe"]["dtype"] == dtype
        out = run("predict", dtype, "--json", "the good bad", "tin 7")[1]
        answers = [json.loads(line)["probabilities"]["yes"] for line in out.splitlines()]
        probabilities.append(torch.tensor(answers))
    assert 0 < (probabilities[0] - probabilities[1]).abs().max() < 0.02


@needs_int8
def test_int8_is_refused_in_one_line_where_it_cannot_be(run, checkpoint, texts, monkeypatch):
    flags = ["--weights", checkpoint, "--data", texts, "--dtype", "int8"]
    status, out, err = run("train", *flags)
    assert (status, out) == (2, "") and err.startswith("error: --dtype int8 is for frozen blocks")
    assert run("train", *flags, "--freeze-trunk", "--epochs", 1, "--out", "r")[0] == 0
    monkeypatch.setattr(int8, "has_int8", lambda: False)
    for command in (["train", *flags, "--freeze-trunk"], ["predict", "r", "good"]):
        status, out, err = run(*command)
        assert (status, out) == (2, "") and err.startswith("error: int8 needs a CPU with AVX-512")
        assert err.count("\n") == 1


@pytest.mark.skipif(not shutil.which("c++"), reason="torch.compile needs a C++ compiler")
def test_compiled_blocks_compute_the_same(run, checkpoint, texts):
    flags = ["--train-last", 1, "--weights", checkpoint, "--data", texts, "--dropout", 0]
    for name, more in (("plain", []), ("compiled", ["--compile"])):
        status, _, err = run("train", *flags, "--epochs", 1, "--out", name, *more)
        assert status == 0, err
    assert not torch._dynamo.utils.counters["graph_break"]  # each block is one graph
    plain, compiled = (
        json.loads(Path(n, "metrics.json").read_text()) for n in ("plain", "compiled")
    )
    assert abs(plain["test"]["loss"] - compiled["test"]["loss"]) < 1e-4


def test_what_is_trained_decides_the_default_learning_rate(run, checkpoint, texts):
    """The same tensors, however they are named, get the same one; with n_embd 24 here."""
    rates = {}
    for i, flags in enumerate(("norms", "*ln_?.*", "bitfit", "h.2.*", "lora", "freeze")):
        how = {"lora": ["--lora", "2"], "freeze": ["--freeze-trunk"]}
        given = how.get(flags, ["--train-only", flags])
        status, _, err = run(
            "train", "--weights", checkpoint, "--data", texts, "--out", i, "--epochs", "1", *given
        )
        assert status == 0, err
        rates[flags] = json.loads(Path(str(i), "run.json").read_text())["recipe"]["lr"]
    assert rates["norms"] == rates["*ln_?.*"] == rates["bitfit"] == 1.3 / 24
    assert rates["lora"] == 0.5 / 24 and rates["freeze"] == 1e-2 and rates["h.2.*"] == 1e-3


BAD_FLAGS = {
    "--freeze-trunk --train-last 2": "not allowed with",
    "--freeze-trunk --train-only h.*": "not allowed with",
    "--freeze-trunk --warm-head 3": "nothing comes after",
    "--train-last 4": "the trunk has blocks 1 to 3",
    "--train-last two": "invalid int value",
    "--train-only h.7.*": "matches no tensor",
    "--pool median": "invalid choice",
    "--device tpu": "invalid choice",
    "--epochs 0": "0 is not 1 or more",
    "--lr nan": "nan is not above 0",
    "--clip 0": "0 is not above 0",
    "--weight-decay -1": "-1 is not 0.0 or more",
    "--dropout 1": "under 1.0",
    "--max-length 65": "it can be 1 to 64 tokens",
    "--max-length 1 --append-end": "it can be 2 to 64 tokens",
    "--lora 0": "--lora 0: it can be 1 to 24",
    "--lora 25": "the width of the trunk",
    "--lora 2 --prompt 3": "not allowed with",
    "--train-last 1 --lora-on=": "go with --lora R",
    "--lora 2 --lora-on c_atn": "matches no layer",
    "--adapter 2 --in-last 4": "the trunk has blocks 1 to 3",
    "--prefix 2 --in-last 1": "goes with --lora or --adapter",
    "--prompt 64": "--prompt 64 leaves no room for a text in a context of 64",
    "--prefix 60 --max-length 5": "it can be 1 to 4 tokens",
    "--prompt 63 --append-end": "--prompt 63 leaves no room for a text",
    "--out=": "it is empty",
    "--weights=": "it is empty",
    "--colour red": "unrecognized arguments",
    "--weights nowhere": "no such folder",
    "--data nowhere.tsv": "no such file",
    "--out full": "is not empty",
    "--out texts.tsv": "is a file, not a folder",
}


@pytest.mark.parametrize("flags", BAD_FLAGS)
def test_bad_flags_get_one_line_and_status_2_and_leave_nothing(flags, run, checkpoint, texts):
    Path("full").mkdir()
    Path("full/file").touch()
    before = files_of(Path())
    status, _, err = run(
        "train", "--weights", checkpoint, "--data", texts, "--epochs", 1, *flags.split()
    )
    assert status == 2
    assert err.startswith("error: ") and err.count("\n") == 1 and BAD_FLAGS[flags] in err
    assert files_of(Path()) == before and not Path("runs").exists()


def test_an_interrupted_run_leaves_nothing_and_says_so(run, checkpoint, texts, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("minigpt.runs.journal.fit", interrupt)
    before = files_of(Path())
    status, _, err = run("train", "--weights", checkpoint, "--data", texts)
    assert status == 130 and err.strip() == "interrupted"
    assert files_of(Path()) == before and not Path("runs").exists()


def test_a_disk_that_fills_up_while_writing_leaves_nothing(run, checkpoint, texts, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "learned.safetensors")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    status, _, err = run("train", "--freeze-trunk", "--weights", checkpoint, "--data", texts)
    assert status == 2 and "No space left on device" in err
    assert not Path("runs").exists() or not any(Path("runs").iterdir())


def test_the_package_imports_nothing_heavy_that_the_main_job_does_not_need():
    """transformers, peft and scikit-learn are oracles for tests; no module imports them."""
    for path in [ROOT / "train.py", *(ROOT / "minigpt").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module]
            heavy = ("transformers", "peft", "sklearn")
            assert not any(name.startswith(heavy) for name in names), (path, names)


def test_nothing_is_unpickled_and_no_code_comes_from_a_file():
    """Weights are safetensors, the rest is JSON and text: what a file holds is never run."""
    for path in [ROOT / "train.py", *(ROOT / "minigpt").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            words = {ast.unparse(node.func)} if isinstance(node, ast.Call) else set()
            if isinstance(node, ast.Import | ast.ImportFrom):
                words = {alias.name for alias in node.names} | {getattr(node, "module", "")}
            bad = {"eval", "exec", "compile", "pickle", "dill", "yaml", "marshal", "torch.load"}
            assert not words & (bad | {"torch.jit.load"}), (path, words)
