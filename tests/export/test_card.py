"""The model card of an export: the Hub's own library reads its header, and people its text."""

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

FIT = ["--epochs", "1", "--out", "r"]


@pytest.fixture
def export(run, checkpoint, texts):
    """Train with flags, export as a library wants it; return the card."""

    def make(kind, *flags) -> ModelCard:
        status, _, err = run("train", "--weights", checkpoint, "--data", texts, *FIT, *flags)
        assert status == 0, err
        status, _, err = run("export", "r", "--to", "mine", "--as", kind)
        assert status == 0, err
        return ModelCard.load("mine/README.md")

    return make


@pytest.mark.parametrize("kind", ["transformers", "peft"])
def test_the_hub_reads_what_was_measured(kind, export):
    card = export(kind, "--lora", "2")
    metrics = json.loads(Path("r/metrics.json").read_text())
    data, test = card.data, metrics["test"]
    assert (data.library_name, data.pipeline_tag) == (kind, "text-classification")
    assert data.license == "unknown" and data.base_model is None and data.datasets is None
    accuracy, f1 = data.eval_results
    assert accuracy.metric_value == test["accuracy"] and f1.metric_value == test["macro_f1"]
    low, high = test["interval"]
    assert accuracy.metric_name == f"Accuracy (95 % interval {low:.3f} to {high:.3f})"
    assert (accuracy.dataset_name, accuracy.dataset_split) == ("texts.tsv", "test")


@pytest.mark.parametrize("kind", ["transformers", "peft"])
def test_people_read_what_it_is_and_no_path_of_this_machine(kind, export, tmp_path):
    text = export(kind, "--lora", "2", "--keep", "end", "--dtype", "bfloat16").text
    freezing = json.loads(Path("r/metrics.json").read_text())["freezing"]
    assert text.startswith("\n# mine\n") or text.startswith("# mine\n")
    for said in (
        "which of 2 classes",
        f"lora 2, {freezing['learning']:,} of {freezing['total']:,} parameters",
        "the last 64 tokens",
        "    test accuracy ",
        "    answered ",
        "'mine'",
        "160 texts to train on",
        "Measured once, on 20 texts, in bfloat16.",
    ):
        assert said in text, said
    assert str(tmp_path) not in text
    assert kind == "transformers" or "'checkpoint'" in text  # the base, in the lines that open it


def test_official_weights_and_data_are_named_as_the_hub_has_them(export):
    """A run of tiny on mirrored, said to be one of gpt2 on sst2."""
    from minigpt.export.card import card, metrics_of
    from minigpt.runs import load_run

    export("peft", "--lora", "2")
    opened, metrics = load_run("r"), metrics_of("r", 2)
    object.__setattr__(opened.checkpoint, "name", "gpt2")
    metrics["data"]["name"] = "sst2"
    data = ModelCard(card(opened, metrics, "mine", "peft", "")).data
    assert (data.license, data.base_model) == ("mit", "openai-community/gpt2")
    assert data.datasets == ["SetFit/sst2"] and data.eval_results[0].dataset_type == "SetFit/sst2"


def test_a_run_without_figures_has_a_card_that_says_so(export, run):
    export("transformers", "--freeze-trunk")
    assert run("export", "mine", "--to", "again")[0] == 0
    card = ModelCard.load("again/README.md")
    assert "It was not measured." in card.text and card.data.eval_results is None


def test_damaged_figures_are_one_line(export, run):
    export("transformers", "--freeze-trunk")
    metrics = json.loads(Path("r/metrics.json").read_text())
    for confusion, said in (
        ([["many"]], "test.confusion.0.0 is 'many'"),
        ([[20]], "not those of 2 classes"),
    ):
        metrics["test"]["confusion"] = confusion
        Path("r/metrics.json").write_text(json.dumps(metrics))
        status, _, err = run("export", "r", "--to", "other")
        assert status == 2 and "metrics.json: " in err and said in err and err.count("\n") == 1
