"""What a tokenizer does beyond merges: as AutoTokenizer does it, or refused in one line.

Each of the settings is tried on the same texts, on a small vocabulary and on the official one.
"""

import json
import random
import shutil

import pytest
from conftest import SMALL, random_trunk, write_vocabulary

from minigpt.checkpoints import describe, open_tokenizer
from minigpt.checkpoints.settings import ADDED, CONFIG, NAMED, ONE_FILE
from minigpt.data import Example, tokenize
from minigpt.edge.errors import InputError
from minigpt.tokenizer import END_OF_TEXT
from minigpt.weights import save_trunk

transformers = pytest.importorskip("transformers")

SIZE = SMALL.vocab_size  # of the small vocabulary: the first id of an added token, N below
PIECES = [
    "the",
    " good",
    "bad ",
    "<url>",
    "<URL>",
    "<url",
    "<url>>",
    "@user",
    "[PAD]",
    "goo",
    "ggood",
]
PIECES += [
    "<s>",
    "</s>",
    "<|pad|>",
    " ",
    "  ",
    "\n",
    "\t ",
    "é",
    "😀",
    "映画",
    "'s",
    "123",
    "!?",
    "\0",
]
PIECES += ["\u00a0", "İ", "ﬁ", "e\u0301", "A", "thé", "_", "-"]


def texts() -> list[str]:
    """Return 50 texts: empty, spaces, Unicode, added tokens inside of words and beside others."""
    rng = random.Random(5)
    fixed = [
        "",
        " ",
        "\n",
        "the good",
        " the good",
        "<url>",
        "x<url>y",
        "<url><url>",
        "<url> <url>",
    ]
    fixed += [
        "go<url>od",
        "[PAD]the",
        "a@user,b",
        "<url>>",
        " <url> ",
        "good",
        "the bad good",
        "<s>a</s>",
    ]
    made = ["".join(rng.choices(PIECES, k=rng.randrange(1, 9))) for _ in range(50 - len(fixed))]
    return fixed + made


TEXTS = texts()


def added(content: str, id: int | str = "N", **flags) -> dict:
    """Return a token as tokenizer.json has it."""
    never = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"id": id, "content": content} | never | flags


def listed(*tokens: dict) -> dict:
    """Return an added_tokens_decoder, as tokenizer_config.json has it."""
    return {
        "added_tokens_decoder": {str(t["id"]): {k: t[k] for k in t if k != "id"} for t in tokens}
    }


def template(*single: str, **ids) -> dict:
    """Return a post_processor that puts tokens around the text, which is A."""
    parts = [
        {"Sequence": {"id": "A", "type_id": 0}}
        if name == "A"
        else {"SpecialToken": {"id": name, "type_id": 0}}
        for name in single
    ]
    known = {name: {"id": name, "ids": [ids.get(name, "END")], "tokens": [name]} for name in single}
    known.pop("A", None)
    processor = {"type": "TemplateProcessing", "single": parts, "pair": [*parts, PAIR]}
    return {"post_processor": processor | {"special_tokens": known}}


PAIR = {"Sequence": {"id": "B", "type_id": 1}}
URL, USER, END = added("<url>", normalized=True), added("@user", "N+1"), added(END_OF_TEXT, "END")
PAD = added("[PAD]", special=True)
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
SPACED = BYTES | {"add_prefix_space": True}
WHOLE = {"tokenizer_class": "PreTrainedTokenizerFast"}


def model(**fields) -> dict:
    return {"model": fields}


# {name: (the files, None or what is refused)}. "N" is the first id after the vocabulary, "END" that
# of <|endoftext|>; tokenizer.json is what transformers saves, but for the fields given here.
SETTINGS = {
    "none": ({}, None),
    "saved": ({ONE_FILE: {}}, None),
    "class": ({ONE_FILE: {}, CONFIG: WHOLE}, None),
    "old class": ({CONFIG: {"tokenizer_class": "GPT2TokenizerFast"}}, None),
    "other class": ({CONFIG: {"tokenizer_class": "BertTokenizer"}}, "tokenizer_class"),
    "class of the model": (
        {"config.json": {"tokenizer_class": "XLNetTokenizer"}},
        "tokenizer_class",
    ),
    "code": ({CONFIG: {"auto_map": {"AutoTokenizer": ["a.B", None]}}}, "auto_map"),
    "space": ({CONFIG: {"add_prefix_space": True}}, None),
    "space in both": (
        {ONE_FILE: {"pre_tokenizer": SPACED}, CONFIG: {"add_prefix_space": True}},
        None,
    ),
    "space in one file": ({ONE_FILE: {"pre_tokenizer": SPACED}, CONFIG: WHOLE}, None),
    "space in one only": ({ONE_FILE: {"pre_tokenizer": SPACED}}, "pre_tokenizer.add_prefix_space"),
    "space in the other": (
        {ONE_FILE: {}, CONFIG: {"add_prefix_space": True}},
        "pre_tokenizer.add_prefix_space",
    ),
    "space and token": ({CONFIG: {"add_prefix_space": True} | listed(URL)}, None),
    "old list": ({ADDED: {"<url>": "N", "@user": "N+1"}}, None),
    "old list without its order": ({ADDED: {"@user": "N+1", "<url>": "N"}}, None),
    "old list and names": ({ADDED: {"[PAD]": "N"}, NAMED: {"pad_token": "[PAD]"}}, None),
    "wrong id": ({ADDED: {"<url>": "N+1"}}, "has the id"),
    "list": ({CONFIG: listed(END, URL, USER)}, None),
    "list in one file": ({ONE_FILE: {"added_tokens": [END, URL, USER]}}, None),
    "list in one file, as it is": ({ONE_FILE: {"added_tokens": [END, URL]}, CONFIG: WHOLE}, None),
    "list in both": ({ONE_FILE: {"added_tokens": [END, URL]}, CONFIG: listed(END, URL)}, None),
    "lists differ": (
        {ONE_FILE: {"added_tokens": [END, URL]}, CONFIG: listed(END)},
        "added_tokens",
    ),
    "names in two files": (
        {CONFIG: {"extra_special_tokens": {"url_token": "<url>"}}}
        | {NAMED: {"additional_special_tokens": ["@user"], "pad_token": "[PAD]"}},
        None,
    ),
    "one in the other": (
        {CONFIG: listed(added("<url", "N"), added("<url>", "N+1"), added("<url>>", "N+2"))},
        None,
    ),
    "normalized later": (
        {CONFIG: listed(added("<url>>", normalized=True), added("<url", "N+1"))},
        None,
    ),
    "in the vocabulary": ({CONFIG: listed(added("he", "HE"))}, None),
    "lstrip": ({CONFIG: listed(added("<url>", lstrip=True))}, "lstrip"),
    "rstrip": ({ONE_FILE: {"added_tokens": [END, added("<url>", rstrip=True)]}}, "rstrip"),
    "single word": ({CONFIG: listed(added("@user", single_word=True))}, "single_word"),
    "pad": ({CONFIG: {"pad_token": "[PAD]"}}, None),
    "pad in an old file": ({NAMED: {"pad_token": {"content": "[PAD]", "lstrip": False}}}, None),
    "pad strips": (
        {NAMED: {"mask_token": {"content": "<url>", "lstrip": True}}},
        "mask_token.lstrip",
    ),
    "others": ({CONFIG: {"additional_special_tokens": ["<url>", "@user"]}}, None),
    "extra": ({CONFIG: {"extra_special_tokens": {"url_token": "<url>"}}}, None),
    "own name": ({CONFIG: {"url_token": "<url>", "pad_token": "[PAD]"}}, None),
    "split": ({CONFIG: {"split_special_tokens": True} | listed(PAD, added("<url>", "N+1"))}, None),
    "bos": ({CONFIG: {"add_bos_token": True}}, None),
    "own bos": ({CONFIG: {"add_bos_token": True, "bos_token": "<s>"}}, None),
    "bos beside one file": ({ONE_FILE: {}, CONFIG: {"add_bos_token": True}}, "add_bos_token"),
    "eos": ({CONFIG: {"add_eos_token": True}}, None),
    "own eos": ({CONFIG: {"add_eos_token": True, "eos_token": "</s>"}}, "add_eos_token"),
    "template": ({ONE_FILE: template(END_OF_TEXT, "A", END_OF_TEXT)}, None),
    "template, as it is": ({ONE_FILE: template("A", END_OF_TEXT), CONFIG: WHOLE}, None),
    "template of others": ({ONE_FILE: template("[X]", "A", **{"[X]": 3}), CONFIG: WHOLE}, None),
    "template ends with another": (
        {ONE_FILE: template("A", "[X]", **{"[X]": 3})},
        "post_processor",
    ),
    "template without text": ({ONE_FILE: template(END_OF_TEXT)}, "post_processor"),
    "two steps": (
        {
            ONE_FILE: {
                "post_processor": {
                    "type": "Sequence",
                    "processors": [BYTES, template(END_OF_TEXT, "A")["post_processor"]],
                }
            },
        },
        None,
    ),
    "offsets": ({ONE_FILE: {"post_processor": SPACED}}, None),
    "as RoBERTa": (
        {
            ONE_FILE: {
                "post_processor": {"type": "RobertaProcessing", "sep": ["!", 0], "cls": ["!", 0]}
                | {"trim_offsets": True, "add_prefix_space": False}
            }
        },
        "post_processor.type",
    ),
    "normalizer": ({ONE_FILE: {"normalizer": {"type": "NFC"}}}, "normalizer"),
    "lower case": ({ONE_FILE: {"normalizer": {"type": "Lowercase"}}, CONFIG: WHOLE}, "normalizer"),
    "slow lower case": ({CONFIG: {"do_lower_case": True}}, "do_lower_case"),
    "other words": ({ONE_FILE: {"pre_tokenizer": {"type": "Whitespace"}}}, "pre_tokenizer.type"),
    "no words": (
        {ONE_FILE: {"pre_tokenizer": BYTES | {"use_regex": False}}},
        "pre_tokenizer.use_regex",
    ),
    "dropout": ({ONE_FILE: model(dropout=0.5), CONFIG: WHOLE}, "model.dropout"),
    "prefix": ({ONE_FILE: model(continuing_subword_prefix="##")}, "continuing_subword_prefix"),
    "suffix": ({ONE_FILE: model(end_of_word_suffix="</w>"), CONFIG: WHOLE}, "end_of_word_suffix"),
    "unknown": ({ONE_FILE: model(unk_token="!", fuse_unk=True), CONFIG: WHOLE}, None),
    "byte fallback": ({ONE_FILE: model(byte_fallback=True), CONFIG: WHOLE}, None),
    "no merges for words": ({ONE_FILE: model(ignore_merges=True), CONFIG: WHOLE}, None),
    "other model": ({ONE_FILE: model(type="WordPiece")}, "model.type"),
    "truncation": (
        {
            ONE_FILE: {
                "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst"}
                | {"stride": 0}
            }
        },
        None,
    ),
    "truncation at the start": (
        {
            ONE_FILE: {
                "truncation": {"direction": "Left", "max_length": 2, "strategy": "LongestFirst"}
                | {"stride": 0}
            }
        },
        "truncation.direction",
    ),
    "what changes no id": (
        {
            CONFIG: {
                "model_max_length": 4,
                "padding_side": "left",
                "clean_up_tokenization_spaces": True,
            }
            | {"errors": "strict", "chat_template": "x", "model_input_names": ["input_ids"]}
        },
        None,
    ),
}


def at(value, size: int, end: int, he: int):
    """Put numbers in the places of "N", "N+1", "END" and "HE", in keys as in values."""
    numbers = {"N": size, "N+1": size + 1, "N+2": size + 2, "END": end, "HE": he}
    if isinstance(value, dict):
        return {str(at(k, size, end, he)): at(v, size, end, he) for k, v in value.items()}
    if isinstance(value, list):
        return [at(v, size, end, he) for v in value]
    return numbers.get(value, value) if isinstance(value, str) else value


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Give a folder without settings, and its tokenizer.json as transformers saves it."""
    made = {}

    def make(official=None):
        if official not in made:
            folder = tmp_path_factory.mktemp("plain") / "it"
            save_trunk(random_trunk(vocab_size=(50257 if official else SIZE) + 6), folder)
            write_vocabulary(folder)
            for name in ("vocab.json", "merges.txt") if official else ():
                shutil.copy(official / name, folder)
            transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder / "saved")
            made[official] = folder, json.loads((folder / "saved" / ONE_FILE).read_text())
        return made[official]

    return make


def prepare(plain, files: dict, folder) -> None:
    """Write a folder of these settings."""
    shutil.copytree(plain[0], folder, ignore=shutil.ignore_patterns("saved"))
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    for name, fields in files.items():
        fields = at(fields, len(vocab), vocab[END_OF_TEXT], vocab["he"])
        if name == ONE_FILE:
            inner = plain[1]["model"] | fields.get("model", {})
            fields = plain[1] | fields | {"model": inner}
        if name == "config.json":
            fields = json.loads((folder / name).read_text()) | fields
        (folder / name).write_text(json.dumps(fields), encoding="utf-8")


def ours(folder, words) -> list[list[int]]:
    """Return the ids that a model is given."""
    checkpoint = describe("x", folder)
    tokenizer = open_tokenizer(checkpoint)
    try:
        open_tokenizer(checkpoint, append_end=False)
        append_end = False
    except InputError as error:
        assert "say --append-end" in str(error)
        append_end = True
    examples = [Example(word, "x") for word in words]
    return [list(ids) for ids in tokenize(examples, ("x",), tokenizer, 10_000, append_end).ids]


def compare(plain, files, refused, folder, words) -> None:
    prepare(plain, files, folder)
    if refused:
        with pytest.raises(InputError) as error:
            open_tokenizer(describe("x", folder))
        message = str(error.value)
        assert refused in message and str(folder) in message and "\n" not in message
        return
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    end = [theirs.convert_tokens_to_ids(END_OF_TEXT)]  # where there is nothing else to read
    for word, found, ids in zip(words, ours(folder, words), theirs(words).input_ids, strict=True):
        assert found == (ids or end), repr(word)


def test_there_are_40_settings_and_50_texts():
    assert len(SETTINGS) >= 40 and len(TEXTS) == 50


@pytest.mark.parametrize("files, refused", SETTINGS.values(), ids=SETTINGS)
def test_ids_are_those_of_auto_tokenizer_or_the_setting_is_refused(files, refused, plain, tmp_path):
    compare(plain(), files, refused, tmp_path / "it", TEXTS)


@pytest.mark.parametrize(
    "name", ["saved", "space and token", "list in one file", "own bos", "template"]
)
def test_ids_of_the_official_vocabulary_are_those_of_auto_tokenizer(name, plain, shared, tmp_path):
    files, refused = SETTINGS[name]
    compare(plain(shared("gpt2-tokenizer")), files, refused, tmp_path / "it", TEXTS)
