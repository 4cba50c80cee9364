"""The bundled data is what README and design promise: the last words alone are worth nothing."""

from collections import Counter, defaultdict

import pytest

from minigpt.datasets.splits import BUNDLED, load_dataset

FILE = BUNDLED / "mirrored.tsv"
HEADER, *LINES = FILE.read_text(encoding="utf-8").removesuffix("\n").split("\n")
ROWS = [dict(zip(HEADER.split("\t"), line.split("\t"), strict=True)) for line in LINES]
SPLITS = ("train", "dev", "test")
KINDS = ("plain", "negation", "contrast", "reversal", "irony", "distance")

# fmt: off
ENDINGS = (  # what the twins of every kind but distance end with
    "all things considered.", "and I mean it.", "and I stand by that.", "and my friends agree.",
    "and that is that.", "and there you have it.", "as I told my sister.", "as far as I can tell.",
    "as these things go.", "at the end of the day.", "by and large.", "by any measure.",
    "for what it is worth.", "from start to finish.", "I have to say.", "if I am honest.",
    "if you ask me.", "in my humble opinion.", "in the end.", "looking back on it.",
    "make of that what you will.", "no two ways about it.", "now that I think of it.",
    "so there you go.", "speaking for myself.", "take it from me.", "the way I see it.",
    "through and through.", "to be perfectly honest.", "to tell the truth.",
    "when all is said and done.",
)
# fmt: on


def twins() -> list[tuple[dict, dict]]:
    """Return (positive row, negative row) of each pair."""
    pairs = defaultdict(dict)
    for row in ROWS:
        pairs[row["pair"]][row["label"]] = row
    return [(pair["positive"], pair["negative"]) for pair in pairs.values()]


def shared_ending(a: str, b: str) -> list[str]:
    """Return the words that both texts end with."""
    a, b = a.split(), b.split()
    n = 0
    while n < min(len(a), len(b)) and a[-1 - n] == b[-1 - n]:
        n += 1
    return a[len(a) - n :]


def test_rows_are_texts_of_known_kinds_and_no_text_occurs_twice():
    assert HEADER.split("\t") == ["pair", "split", "kind", "label", "text"]
    assert {row["kind"] for row in ROWS} == {*KINDS} and {row["split"] for row in ROWS} == {*SPLITS}
    assert all(row["text"] == row["text"].strip() != "" for row in ROWS)
    assert len({row["text"].lower() for row in ROWS}) == len(ROWS)


def test_every_pair_is_two_texts_of_one_split_and_kind_with_opposite_labels():
    pairs = defaultdict(list)
    for row in ROWS:
        pairs[row["pair"]].append(row)
    for number, pair in pairs.items():
        assert sorted(row["label"] for row in pair) == ["negative", "positive"], number
        assert len({(row["split"], row["kind"]) for row in pair}) == 1, number


def test_there_are_at_least_600_pairs_400_of_them_to_train_and_50_for_dev():
    count = Counter(positive["split"] for positive, _ in twins())
    assert (count["train"], count["dev"]) == (400, 50)
    assert count["test"] >= 150 and count.total() >= 600


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_the_same_share_in_every_split(kind):
    pairs = [positive for positive, _ in twins()]
    share = sum(pair["kind"] == kind for pair in pairs) / len(pairs)
    for split in SPLITS:
        kinds = [pair["kind"] for pair in pairs if pair["split"] == split]
        assert abs(kinds.count(kind) / len(kinds) - share) < 0.03, split
    if kind == "plain":
        assert share >= 0.6
    if kind == "distance":
        assert 0.08 <= share <= 0.12


def test_twins_are_of_similar_length_and_end_alike_but_not_before_their_last_words():
    for positive, negative in twins():
        lengths = sorted(len(row["text"].split()) for row in (positive, negative))
        assert lengths[1] <= 1.5 * lengths[0], positive["pair"]
        ending = shared_ending(positive["text"], negative["text"])
        assert len(ending) >= (8 if positive["kind"] == "distance" else 3), positive["pair"]
        assert len(ending) <= lengths[0] - 3, positive["pair"]  # what differs is the rating


def test_all_but_the_distant_pairs_end_with_one_of_a_few_stock_endings():
    used = Counter()
    for positive, negative in twins():
        if positive["kind"] != "distance":
            ending = " ".join(shared_ending(positive["text"], negative["text"]))
            stock = [e for e in ENDINGS if f" {ending}".endswith(f" {e}")]
            assert len(stock) == 1, (positive["pair"], ending)
            used += Counter(stock)
    assert used.keys() == {*ENDINGS} and len(used) <= 40 and min(used.values()) >= 5


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("words", [0, 1, 2, 3])
def test_the_last_words_are_worth_exactly_half(split, words):
    """No words: the labels are balanced. Else every ending has as many texts of either label."""
    labels = defaultdict(Counter)
    for row in ROWS:
        if row["split"] == split:
            last = row["text"].split()[-words:] if words else []
            labels[tuple(last)][row["label"]] += 1
    assert all(count["positive"] == count["negative"] for count in labels.values())


def test_many_twins_begin_alike():
    starts = [[row["text"].split()[:2] for row in pair] for pair in twins()]
    assert sum(a == b for a, b in starts) >= len(starts) / 3


def test_texts_are_written_not_filled_in():
    """No run of five words, outside the shared endings, is in more than one text of fifty."""
    runs = Counter()
    for pair in twins():
        ending = len(shared_ending(*(row["text"] for row in pair)))
        for row in pair:
            words = row["text"].lower().split()[:-ending]
            runs += Counter({" ".join(words[i : i + 5]) for i in range(len(words) - 4)})
    assert runs.most_common(1)[0][1] <= 0.02 * len(ROWS), runs.most_common(3)


def test_the_file_loads_with_its_own_splits_whatever_the_seed():
    first, second = load_dataset("mirrored", seed=0), load_dataset("mirrored", seed=1)
    assert first == second and first.labels == ("negative", "positive")
    for split in SPLITS:
        found = [(e.pair, e.kind, e.label, e.text) for e in getattr(first, split)]
        columns = ("pair", "kind", "label", "text")
        assert found == [tuple(r[c] for c in columns) for r in ROWS if r["split"] == split]
