"""Files become examples and splits, with nothing lost, repeated or invented."""

import pytest

from minigpt.data import Example
from minigpt.datasets import read_examples
from minigpt.datasets.splits import label_names, load_dataset
from minigpt.edge.errors import InputError


def write(folder, files: dict[str, str | bytes]):
    """Write files into a folder as they are, and return it."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (folder / name).write_bytes(data)
    return folder


def rows(n: int, labels="01", name="text") -> str:
    """Return n lines of a .tsv file without header, each text its own, the labels in turn."""
    return "".join(f"{name} {i}\t{labels[i % len(labels)]}\n" for i in range(n))


def complaint(load, *args) -> str:
    """Return what an InputError says, in one line."""
    with pytest.raises(InputError) as error:
        load(*args)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- files -> examples

GOOD = {
    "no header.tsv": ("good\t1\nbad\t0\n", [("good", "1"), ("bad", "0")]),
    "text first.tsv": ("text\tlabel\ngood\tpos\n", [("good", "pos")]),
    "label first.tsv": ("label\tsentence\n1\tgood\n", [("good", "1")]),
    "any case.tsv": ("id\t Content\tLABEL \n7\tgood\t1\n", [("good", "1")]),
    "no quoting.tsv": ('"so" good\t1\n"bad\t0\n', [('"so" good', "1"), ('"bad', "0")]),
    "other breaks.tsv": ("a\u2028b\x85c\rd\t1\n\n\t0\n", [("a\u2028b\x85c\rd", "1"), ("", "0")]),
    "windows.tsv": ("\ufefftext\tlabel\r\ngood\t1\r\nbad\t0\r\n", [("good", "1"), ("bad", "0")]),
    "no end of line.tsv": ("good\t1\nbad\t0", [("good", "1"), ("bad", "0")]),
    "quotes.csv": ('text,label\n"a ""b"", c",1\n', [('a "b", c', "1")]),
    "lines.csv": ('label,text\n1,"a\nb\r\nc"\n\n0,d\n', [("a\nb\r\nc", "1"), ("d", "0")]),
    "windows.csv": ('\ufeff"text","label"\r\ngood,1\r\n', [("good", "1")]),
    "no header.csv": ('"good, really",pos\nbad,neg\n', [("good, really", "pos"), ("bad", "neg")]),
    "ints.jsonl": ('{"text":"\\t","label":1}\n\n{"label":-1,"text":""}', [("\t", "1"), ("", "-1")]),
    "floats.csv": ("text,label\na,1.0\nb,-0.0\n", [("a", "1"), ("b", "0")]),  # as pandas writes
    "versions.csv": ("text,label\na,1.0\nb,beta\n", [("a", "1.0"), ("b", "beta")]),
    "truth.jsonl": ('{"text":"a","label":true}', [("a", "True")]),
    "words.jsonl": ('\ufeff{"sentence":"\u2028é","label":"so so"}\r\n', [("\u2028é", "so so")]),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_every_way_to_write_a_file_gives_the_texts_and_labels(name, tmp_path):
    content, expected = GOOD[name]
    examples = read_examples(write(tmp_path, {name: content}) / name)
    assert [(e.text, e.label) for e in examples] == expected


BAD = [
    ("missing.tsv", None, "no such file"),
    ("notes.doc", "a\t1\n", "ends in .tsv, .csv, .jsonl"),
    ("empty.tsv", "", "no examples"),
    ("empty.csv", "\n", "no examples"),
    ("empty.jsonl", "", "no examples"),
    ("header.tsv", "text\tlabel\n", "no examples"),
    ("header.csv", "text,label\n", "no examples"),
    ("latin.tsv", "a\t1\ncaf\xe9\t1\n".encode("latin-1"), "line 2: not UTF-8"),
    ("latin.csv", b"\xef\xbb\xbfa,1\n\xe9,1\n", "line 2: not UTF-8"),
    ("title.csv", "title,label\nA,1\n", "line 1: neither a header with text"),
    ("number.jsonl", '{"text": 5, "label": 1}', "line 1: no text"),
    ("three.tsv", "a\tb\t1\n", "neither a header with text|sentence|content and label"),
    ("one.tsv", "a\nb\n", "nor two columns"),
    ("stars.csv", "essay,grade\na,1\nb,0\nc,1\n", "say --text-column and --label-column"),
    ("short.tsv", "a\t1\n\nb\n", "line 3: 1 columns instead of 2"),
    ("long.csv", 'text,label\n"a\nb",1\nc,1,2\n', "line 4: 3 columns instead of 2"),
    ("quote.csv", 'text,label\n"a" b,1\n', "line 2: "),
    ("open.csv", 'text,label\nb,1\n"a,1\n', "line 3: "),
    ("blank.tsv", "a\t1\nb\t \n", "line 2: the label is ' '"),
    ("missing.jsonl", '{"text": "a"}\n', "line 1: the label is None"),
    ("null.jsonl", '{"text": "a", "label": null}', "line 1: the label is None"),
    ("float.jsonl", '{"text": "a", "label": 0.5}', "line 1: the label is 0.5"),
    ("list.jsonl", '{"text": "a", "label": [1]}', "line 1: the label is [1]"),
    ("cut.jsonl", '{"text": "a", "label": 1}\n{"text": "b\n', "line 2: not JSON"),
    ("list.jsonl", '["a", 1]\n', "line 1: not an object"),
]


@pytest.mark.parametrize("name, content, says", BAD, ids=[name for name, *_ in BAD])
def test_bad_files_are_refused_by_name_and_line(name, content, says, tmp_path):
    if content is not None:
        write(tmp_path, {name: content})
    message = complaint(read_examples, tmp_path / name)
    assert str(tmp_path / name) in message and says in message


# --- examples -> splits


@pytest.mark.parametrize(
    "labels",
    [("neg", "pos"), ("2", "10"), ("-1", "0", "1"), ("1", "2", "many"), ("--2", "-1")],
)
def test_classes_are_in_order_of_number_or_alphabet(labels):
    examples = [Example("", label) for label in reversed(labels)]
    assert label_names(examples) == labels


def test_a_file_is_split_80_10_10_by_the_seed_alone(tmp_path):
    write(tmp_path, {"data.tsv": rows(300, labels="aaabbc")})
    everything = read_examples(tmp_path / "data.tsv")
    data = load_dataset(str(tmp_path / "data.tsv"), seed=1)
    assert data.labels == ("a", "b", "c")
    for part, tenths in ((data.train, 8), (data.dev, 1), (data.test, 1)):  # each label in shares
        assert sorted(e.label for e in part) == sorted(tenths * ("a" * 15 + "b" * 10 + "c" * 5))
    texts = [e.text for e in data.train + data.dev + data.test]
    assert sorted(texts) == sorted(e.text for e in everything)  # none lost, none in two splits
    assert load_dataset(str(tmp_path / "data.tsv"), seed=1) == data
    other = load_dataset(str(tmp_path / "data.tsv"), seed=2)
    assert all(getattr(other, s) != getattr(data, s) for s in ("train", "dev", "test"))


def test_a_folder_is_read_as_it_is_and_a_missing_dev_is_a_tenth_of_train(tmp_path):
    files = {"train.csv": "text,label\n" + rows(40).replace("\t", ","), "test.tsv": rows(6)}
    without = load_dataset(str(write(tmp_path / "without", files)), seed=0)
    files["validation.jsonl"] = '{"text": "a", "label": 1}\n'
    data = load_dataset(str(write(tmp_path / "with", files)), seed=0)
    train = [e.text for e in data.train]
    assert train == [f"text {i}" for i in range(40)]
    assert data.dev == [Example("a", "1")] and data.test == without.test
    assert sorted(e.label for e in without.dev) == ["0", "0", "1", "1"]
    assert sorted(e.text for e in without.train + without.dev) == sorted(train)


def test_a_column_split_decides(tmp_path):
    split = {0: "train", 1: "valid", 2: "test"}
    lines = [f"text {i},{i // 3 % 2},{split[i % 3]},p{i // 2},odd" for i in range(12)]
    content = "\n".join(["text,label,split,pair,kind", *lines])
    data = load_dataset(str(write(tmp_path, {"data.csv": content}) / "data.csv"), seed=0)
    for i, part in enumerate((data.train, data.dev, data.test)):
        assert [e.text for e in part] == [f"text {j}" for j in range(i, 12, 3)]
    assert data.train[1] == Example("text 3", "1", pair="p1", kind="odd", split="train")


TRAIN, TEST = rows(20, name="a"), rows(4, name="b")
GOOD_FOLDER = {"train.tsv": TRAIN, "test.tsv": TEST}
SPLIT = "text\tlabel\tsplit\n" + "a\t1\ttrain\nb\t0\ttrain\nc\t1\ttest\n" * 20
BAD_DATA = {  # what --data names, the files there, what the message says
    "nothing": ("data.tsv", {}, "no such file"),
    "one class": ("data.tsv", {"data.tsv": rows(30, "0")}, "all of train has the label 0"),
    "too few": ("data.tsv", {"data.tsv": rows(4)}, "no label has enough of them"),
    "label first": ("", GOOD_FOLDER | {"test.tsv": "1\tb\n"}, "test has the label b"),
    "new label": ("", GOOD_FOLDER | {"dev.tsv": "b\t2\n"}, "dev has the label 2"),
    "no test": ("", {"train.tsv": TRAIN, "dev.tsv": TEST}, "has no test.tsv"),
    "no train": ("", {"test.tsv": TEST}, "has no train.tsv"),
    "two tests": ("", GOOD_FOLDER | {"test.csv": "b,1"}, "test.tsv and test.csv are both"),
    "two devs": ("", GOOD_FOLDER | {"dev.tsv": TEST, "valid.tsv": TEST}, "valid.tsv are both"),
    "bad line": ("", GOOD_FOLDER | {"dev.tsv": TEST + "b\n"}, "dev.tsv, line 5"),
    "odd split": ("data.tsv", {"data.tsv": SPLIT + "d\t1\tfinal\n"}, "split is 'final'"),
    "no test in split": (
        "data.tsv",
        {"data.tsv": SPLIT.replace("test", "dev")},
        "split names none",
    ),
    "no split": ("data.tsv", {"data.tsv": SPLIT.replace("train", "", 1)}, "split is ''"),
}


@pytest.mark.parametrize("name, files, says", BAD_DATA.values(), ids=BAD_DATA)
def test_data_that_cannot_be_learned_from_is_refused_by_name(name, files, says, tmp_path):
    path = write(tmp_path, files) / name
    message = complaint(load_dataset, str(path), 0)
    assert str(path) in message and says in message


def test_texts_that_are_in_train_too_are_told_of(tmp_path):
    """Labels at random are learned by heart: accuracy on the same texts says nothing."""
    files = {"train.tsv": rows(20), "dev.tsv": rows(4, name="a"), "test.tsv": rows(30)}
    told = []
    load_dataset(str(write(tmp_path, files)), seed=0, note=told.append)
    assert "20 of 30 texts for test are in train, too" in told[-1] and "for dev" not in str(told)


def test_twins_stay_on_the_same_side_of_a_split(tmp_path):
    rows = "".join(f"{p}\t{label}\t{p} {label}\n" for p in range(100) for label in "ab")
    (tmp_path / "twins.tsv").write_text("pair\tlabel\ttext\n" + rows, encoding="utf-8")
    data = load_dataset(str(tmp_path / "twins.tsv"), seed=0)
    pairs = [{e.pair for e in split} for split in (data.train, data.dev, data.test)]
    assert [len(p) for p in pairs] == [80, 10, 10] and len(set.union(*pairs)) == 100
