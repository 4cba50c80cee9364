"""What a run says of itself: its table of what is trained adds up, and its policy is its flags."""

from conftest import random_trunk

from minigpt.classifier import Classifier
from minigpt.freeze import freeze, names_to_train
from minigpt.peft import put_on
from minigpt.runs.report import count, policy_name, table


def cells(text: str) -> dict[str, list[str]]:
    """Return the lines of a table by their name: [parameters, trainable]."""
    return {line[:12].strip(): line[12:].split() for line in text.splitlines()[1:]}


def test_the_table_adds_up_and_says_what_is_trained():
    model = Classifier(random_trunk(), 2)
    freeze(model, names_to_train(model.transformer, train_last=1))
    lines = cells(table(model))
    assert list(lines) == ["embeddings", "h.0 - h.1", "h.2", "ln_f", "score", "total"]
    assert lines["embeddings"][1] == lines["h.0 - h.1"][1] == "frozen"
    numbers = [
        [int(x.replace(",", "").replace("frozen", "0")) for x in line] for line in lines.values()
    ]
    assert [sum(column[:-1]) for column in zip(*numbers, strict=True)] == numbers[-1]
    assert numbers[-1] == [count(model)["total"], count(model)["learning"]]
    assert numbers[-1][0] == sum(p.numel() for p in model.parameters())
    assert numbers[-1][1] == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_what_was_added_has_a_line_of_its_own_in_the_table():
    model = Classifier(random_trunk(), 2)
    added = put_on(model.transformer, {"prompt": 5})
    freeze(model, added)
    lines = cells(table(model, added))
    assert [*lines] == ["embeddings", "h.0 - h.2", "ln_f", "added", "score", "total"]
    assert lines["embeddings"][1] == "frozen" and lines["added"] == ["120", "120"]
    assert lines["total"][0] == f"{count(model)['total']:,}"


def test_a_policy_is_named_as_its_flags():
    def name(**settings):
        none = dict.fromkeys(
            ("train_last", "train_only", "warm_head", "lora", "lora_on", "in_last")
        )
        return policy_name(none | {"freeze_trunk": False} | settings)

    assert name(freeze_trunk=True) == "freeze-trunk"
    assert name(train_last=2) == "train-last 2"
    assert name(train_only="h.*") == "train-only h.*"
    assert name() == "everything"
    assert name(warm_head=3, train_last=2) == "warm-head 3, train-last 2"
    assert name(lora=8, lora_on="c_attn") == "lora 8"
    assert name(lora=8, lora_on="c_*", in_last=2) == "lora 8 on c_* in-last 2"
    assert name(warm_head=3, prefix=4) == "warm-head 3, prefix 4"
