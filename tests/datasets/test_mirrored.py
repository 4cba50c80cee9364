"""The bundled data is what README and design promise: the last token alone is worth nothing."""

import re
from collections import Counter, defaultdict

import pytest
from conftest import ROOT

from minigpt.datasets.splits import BUNDLED, load_dataset
from minigpt.tokenizer import load_tokenizer

FILE = BUNDLED / "mirrored.tsv"
HEADER, *LINES = FILE.read_text(encoding="utf-8").removesuffix("\n").split("\n")
ROWS = [dict(zip(HEADER.split("\t"), line.split("\t"), strict=True)) for line in LINES]
SPLITS = ("train", "dev", "test")
LONG = ("plain", "negation", "contrast", "reversal", "irony", "distance")  # ten words or more
KINDS = (*LONG, "short")
NEGATION = re.compile(
    r"\b(no|not|never|nor|neither|none|nothing|nobody|nowhere|cannot|hardly|without)\b|n't\b"
    r"|\b(anything but|far from)\b",
    re.IGNORECASE,
)

# fmt: off
ENDINGS = (  # what twins end with, but for the distant and the short ones
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


def twins(kinds: tuple[str, ...] = KINDS) -> list[tuple[dict, dict]]:
    """Return (positive row, negative row) of each pair of these kinds."""
    pairs = defaultdict(dict)
    for row in ROWS:
        if row["kind"] in kinds:
            pairs[row["pair"]][row["label"]] = row
    return [(pair["positive"], pair["negative"]) for pair in pairs.values()]


def shared_ending(a: str, b: str) -> list[str]:
    """Return the words that both texts end with."""
    a, b = a.split(), b.split()
    n = 0
    while n < min(len(a), len(b)) and a[-1 - n] == b[-1 - n]:
        n += 1
    return a[len(a) - n :]


def are_worth_half(rows: list[dict], last) -> bool:
    """Say whether every ending, as `last` finds it in a text, has as many texts of either label."""
    labels = defaultdict(Counter)
    for row in rows:
        labels[last(row["text"])][row["label"]] += 1
    return all(count["positive"] == count["negative"] for count in labels.values())


@pytest.fixture(params=["tiny", "official"])
def tokenizer(request):
    """Give the bundled tokenizer, then the official one, where it is."""
    tiny = request.param == "tiny"
    folder = ROOT / "weights/tiny" if tiny else request.getfixturevalue("shared")("gpt2-tokenizer")
    return load_tokenizer(folder)


def test_rows_are_texts_of_known_kinds_and_no_text_occurs_twice():
    """Nor with other case or punctuation: no text to test on is one of those to train on."""
    assert HEADER.split("\t") == ["pair", "split", "kind", "label", "text"]
    assert {row["kind"] for row in ROWS} == {*KINDS} and {row["split"] for row in ROWS} == {*SPLITS}
    assert all(row["text"] == row["text"].strip() != "" for row in ROWS)
    assert len({" ".join(re.findall(r"\w+", row["text"].lower())) for row in ROWS}) == len(ROWS)


def test_every_pair_is_two_texts_of_one_split_and_kind_with_opposite_labels():
    pairs = defaultdict(list)
    for row in ROWS:
        pairs[row["pair"]].append(row)
    for number, pair in pairs.items():
        assert sorted(row["label"] for row in pair) == ["negative", "positive"], number
        assert len({(row["split"], row["kind"]) for row in pair}) == 1, number


def test_there_are_900_pairs_536_of_them_to_train_67_for_dev_and_297_to_test():
    assert [row["pair"] for row in ROWS] == [str(1 + i // 2) for i in range(1800)]
    assert Counter(row["split"] for row in ROWS) == {"train": 1072, "dev": 134, "test": 594}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_the_same_share_in_every_split(kind):
    pairs = [positive for positive, _ in twins()]
    share = sum(pair["kind"] == kind for pair in pairs) / len(pairs)
    for split in SPLITS:
        kinds = [pair["kind"] for pair in pairs if pair["split"] == split]
        assert abs(kinds.count(kind) / len(kinds) - share) < 0.03, split
    low, high = {"plain": (0.45, 0.55), "distance": (0.07, 0.12)}.get(kind, (0.03, 0.2))
    assert low <= share <= high


def test_twins_are_of_similar_length_and_end_alike_but_not_before_their_last_words():
    for positive, negative in twins(LONG):
        lengths = sorted(len(row["text"].split()) for row in (positive, negative))
        assert lengths[0] >= 10 and lengths[1] <= 1.5 * lengths[0], positive["pair"]
        ending = shared_ending(positive["text"], negative["text"])
        assert len(ending) >= (8 if positive["kind"] == "distance" else 3), positive["pair"]
        assert len(ending) <= lengths[0] - 3, positive["pair"]  # what differs is the rating


def test_short_twins_have_one_to_nine_words_and_most_share_the_last():
    endings = []
    for positive, negative in twins(("short",)):
        lengths = sorted(len(row["text"].split()) for row in (positive, negative))
        assert lengths[1] <= min(9, lengths[0] + 2), positive["pair"]
        endings.append(shared_ending(positive["text"], negative["text"]))
    assert len(endings) >= 140 and sum(map(bool, endings)) > 0.6 * len(endings)


def test_texts_of_either_label_have_negations():
    """All of those that are named for it, and of the short ones more than one in four."""
    has_one = [[bool(NEGATION.search(row["text"])) for row in p] for p in twins(("negation",))]
    assert all(map(all, has_one)) and len(has_one) >= 100
    has_one = [[bool(NEGATION.search(row["text"])) for row in p] for p in twins(("short",))]
    assert all(sum(texts) > len(texts) / 4 for texts in zip(*has_one, strict=True))


def test_all_but_the_distant_and_the_short_pairs_end_with_one_of_a_few_stock_endings():
    used = Counter()
    for positive, negative in twins(LONG):
        if positive["kind"] != "distance":
            ending = " ".join(shared_ending(positive["text"], negative["text"]))
            stock = [e for e in ENDINGS if f" {ending}".endswith(f" {e}")]
            assert len(stock) == 1, (positive["pair"], ending)
            used += Counter(stock)
    assert used.keys() == {*ENDINGS} and len(used) <= 40 and min(used.values()) >= 5


@pytest.mark.parametrize("split", SPLITS)
def test_the_last_token_is_worth_exactly_half(split, tokenizer):
    rows = [row for row in ROWS if row["split"] == split]
    assert are_worth_half(rows, lambda text: tokenizer.encode_ordinary(text)[-1])


def test_twins_share_their_last_token(tokenizer):
    for pair in twins():
        last = {tokenizer.encode_ordinary(row["text"])[-1] for row in pair}
        assert len(last) == 1, pair[0]["pair"]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("words", [1, 2, 3])
def test_the_last_words_of_all_but_the_short_texts_are_worth_exactly_half(split, words):
    rows = [row for row in ROWS if row["split"] == split and row["kind"] in LONG]
    assert are_worth_half(rows, lambda text: tuple(text.split()[-words:]))


def test_many_twins_begin_alike():
    starts = [[row["text"].split()[:2] for row in pair] for pair in twins()]
    assert sum(a == b for a, b in starts) >= len(starts) / 3


def test_texts_are_written_not_filled_in():
    """No run of five words, outside the shared endings, is in more than one text of fifty."""
    runs = Counter()
    for pair in twins():
        ending = len(shared_ending(*(row["text"] for row in pair)))
        for row in pair:
            words = row["text"].lower().split()
            words = words[: len(words) - ending]
            runs += Counter({" ".join(words[i : i + 5]) for i in range(len(words) - 4)})
    assert runs.most_common(1)[0][1] <= 0.02 * len(ROWS), runs.most_common(3)


def test_the_page_counts_the_pairs_and_shows_one_of_each_kind():
    section = (ROOT / "docs/data.md").read_text(encoding="utf-8").split("\n## mirrored\n")[1]
    tables = [line.strip("| ").split(" | ") for line in section.splitlines() if line[:2] == "| "]
    rows = {first: cells for first, *cells in tables}
    count = Counter(positive["split"] for positive, _ in twins())
    pairs = [*(count[split] for split in SPLITS), count.total()]
    assert rows["pairs"] == [f"{n:,}" for n in pairs]
    assert rows["texts"] == [f"{2 * n:,}" for n in pairs]
    for kind in KINDS:
        of_kind = [tuple(f'"{row["text"]}"' for row in pair) for pair in twins((kind,))]
        number, _, *shown = rows[kind]
        assert number == str(len(of_kind)) and tuple(shown) in of_kind, kind


def test_the_file_loads_with_its_own_splits_whatever_the_seed():
    first, second = load_dataset("mirrored", seed=0), load_dataset("mirrored", seed=1)
    assert first == second and first.labels == ("negative", "positive")
    for split in SPLITS:
        found = [(e.pair, e.kind, e.label, e.text) for e in getattr(first, split)]
        columns = ("pair", "kind", "label", "text")
        assert found == [tuple(r[c] for c in columns) for r in ROWS if r["split"] == split]
