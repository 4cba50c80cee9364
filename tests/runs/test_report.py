"""What a run says of itself: its table of what is trained adds up, and its policy is its flags."""

from conftest import random_trunk

from minigpt.classifier import Classifier
from minigpt.freeze import freeze, names_to_train
from minigpt.peft import put_on
from minigpt.runs.report import count, policy_name, rows_of_confusion, rows_of_test, table


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


def test_the_confusion_matrix_is_aligned_whatever_the_labels():
    rows = rows_of_confusion([[171, 51], [8, 184]], ("negative", "positive"))
    assert rows == [
        ("answered", "negative  positive"),
        ("of negative", "     171        51"),
        ("of positive", "       8       184"),
    ]
    labels = tuple(f"a label that is long, {i}\n" for i in range(10))
    for counts in (1, 123_456):
        rows = rows_of_confusion([[counts] * 10] * 10, labels)
        assert len({len(cells) for _, cells in rows}) == 1 and len(rows) == 11
        assert all(len(name) < 16 for name, _ in rows) and "\n" not in str(rows[0][1])
        assert len(rows[0][1]) <= 64 or counts > 9999
        for _, cells in rows[1:]:
            assert cells.split() == [str(counts)] * 10
        assert rows[0][1].split() == [str(n) for n in range(1, 11)]  # cut, all would be alike
        assert rows[3][0].startswith("of 3 a label")


def test_a_class_without_test_texts_has_no_recall():
    test = {"interval": (0.9, 1.0), "accuracy": 1.0, "commonest": 1.0, "macro_f1": 0.5}
    test |= {"recall": [0.0, 1.0], "confusion": [[0, 0], [0, 9]]}
    rows = rows_of_test(test, ("bad", "good"))
    assert ("recall", "no texts: bad") in rows and ("", "100.0% of 9: good") in rows


def test_a_matrix_of_many_classes_is_not_printed():
    for classes in (10, 11):
        confusion = [[2 * (i == k) for i in range(classes)] for k in range(classes)]
        test = {"interval": (0.9, 1.0), "accuracy": 1.0, "commonest": 0.1, "confusion": confusion}
        names = [name for name, _ in rows_of_test(test, tuple(map(str, range(classes))))]
        assert ("answered" in names) == (classes == 10)
