"""What the files of a tokenizer ask for beyond vocabulary and merges: taken over, or refused.

The files, and what `transformers` 5 makes of them (`from_pretrained` in tokenization_utils_base.py,
`TokenizersBackend`, `GPT2Tokenizer`); a setting that is not in these tables changes no token id.

tokenizer.json           of the `tokenizers` library: vocabulary, merges and the steps around them
tokenizer_config.json    the arguments of the class, the names of special tokens, added tokens
special_tokens_map.json  names of special tokens, of transformers 4
added_tokens.json        {token: id}, of transformers 3
"""

import dataclasses
import re
from pathlib import Path

from minigpt.edge.errors import InputError
from minigpt.edge.fields import (
    MISSING,
    Kind,
    array,
    check,
    flag,
    one_of,
    optional,
    read_json,
    table,
    text,
    whole,
)
from minigpt.tokenizer import END_OF_TEXT, LONGEST

ONE_FILE = "tokenizer.json"  # instead of vocab.json and merges.txt, or beside them
CONFIG, NAMED, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
CLASSES = ("GPT2Tokenizer", "GPT2TokenizerFast")  # takes from tokenizer.json what it needs
WHOLE = ("PreTrainedTokenizerFast", "TokenizersBackend")  # takes tokenizer.json as it is

SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token")
SPECIAL += ("mask_token",)
EXTRA = ("additional_special_tokens", "extra_special_tokens")  # the last list counts


def content_fits(value) -> bool:
    return type(value) is str and 0 < len(value.encode("utf-8", "replace")) <= LONGEST


absent = Kind("null", lambda value: value in (None, MISSING))
content = Kind(f"a text of 1 to {LONGEST} bytes", content_fits)
token = Kind(
    f"a token: a text of 1 to {LONGEST} bytes, or an object with it as its content",
    lambda value: content_fits(value.get("content") if type(value) is dict else value),
)
tokens = Kind("a list or an object", lambda value: type(value) in (list, dict))
token_ids = Kind(
    "a list of ids", lambda value: type(value) is list and all(map(whole().accepts, value))
)
number = whole(0, 2**24)


def flags_of(name: str) -> dict[str, Kind]:
    """Return the fields of an added token, which counts wherever its letters stand."""
    strips = dict.fromkeys(("lstrip", "rstrip", "single_word"), optional(one_of(False)))
    fields = strips | dict.fromkeys(("normalized", "special"), optional(flag))
    return {f"{name}.{field}": kind for field, kind in fields.items()}


def special_fields() -> dict[str, Kind]:
    """Return the fields that name special tokens, in tokenizer_config.json and its forerunner."""
    fields = {}
    for name in SPECIAL:
        fields |= {name: optional(token)} | flags_of(name)
    for name in EXTRA:
        fields |= {name: optional(tokens), f"{name}.*": token} | flags_of(f"{name}.*")
    return fields


FIELDS = {
    CONFIG: {
        "tokenizer_class": optional(one_of(*CLASSES, *WHOLE)),
        "add_prefix_space": optional(flag),
        "add_bos_token": optional(flag),
        "add_eos_token": optional(flag),
        "split_special_tokens": optional(flag),
        "do_lower_case": optional(one_of(False)),  # of slow tokenizers, before transformers 5
        "added_tokens_decoder": optional(table),
        "added_tokens_decoder.*.content": content,
        **flags_of("added_tokens_decoder.*"),
        **special_fields(),
        # Code, or files and arguments that would be taken in place of those in the folder
        **dict.fromkeys(("auto_map", "fast_tokenizer_files", "vocab", "merges"), absent),
        **dict.fromkeys(("gguf_file", "tokenizer_object", "post_processor"), absent),
        "init_inputs": optional(one_of([])),
    },
    NAMED: special_fields(),
    ADDED: {"*": number},
    ONE_FILE: {
        "added_tokens": optional(array),
        "added_tokens.*.id": number,
        "added_tokens.*.content": content,
        **flags_of("added_tokens.*"),
        "normalizer": absent,
        "pre_tokenizer.type": one_of("ByteLevel"),
        "pre_tokenizer.add_prefix_space": flag,
        "pre_tokenizer.use_regex": optional(one_of(True)),
        "post_processor": optional(table),
        "post_processor.type": optional(one_of("ByteLevel", "TemplateProcessing", "Sequence")),
        "post_processor.processors": optional(array),
        "post_processor.processors.*.type": one_of("ByteLevel", "TemplateProcessing"),
        "truncation.direction": optional(one_of("Right")),
        "model.type": optional(one_of("BPE")),
        "model.dropout": optional(one_of(0, 0.0)),
        "model.continuing_subword_prefix": optional(one_of("")),
        "model.end_of_word_suffix": optional(one_of("")),
        "model.vocab": table,
        "model.merges": array,
    },
}
TEMPLATE = {
    "single": array,
    "single.*": Kind(
        "a Sequence or a SpecialToken",
        lambda value: type(value) is dict and [*value] in (["Sequence"], ["SpecialToken"]),
    ),
    "single.*.Sequence.id": optional(one_of("A")),
    "single.*.SpecialToken.id": optional(text),
    "special_tokens": table,
    "special_tokens.*.ids": token_ids,
}
MEND = "a GPT-2 is read here as its tokenizer has it, or not at all; see docs/checkpoints.md"


@dataclasses.dataclass(frozen=True)
class Added:
    """A token that is cut out of a text before anything else is done with it."""

    content: str
    id: int | None  # None: the next free one
    special: bool
    normalized: bool  # cut out after those that are not

    @classmethod
    def of(cls, value: str | dict, id: int | None = None, special: bool = False) -> "Added":
        """Take over a token as the files have it: its text, or an object with flags."""
        fields = {"content": value} if type(value) is str else value
        special = special or bool(fields.get("special"))
        normalized = fields.get("normalized")
        return cls(
            fields["content"], id, special, not special if normalized is None else normalized
        )


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is done beyond merges. Ids are those of the vocabulary it was read for."""

    added: dict[str, Added]
    prefix_space: bool
    before: tuple[int, ...]  # ids that begin a text
    append_end: bool  # a text is ended by <|endoftext|>
    split_special: bool  # special tokens in a text are plain text


def fields_of(folder: Path, name: str) -> dict:
    """Return what one of the files says, checked; nothing if it is not there. Raises InputError."""
    path = folder / name
    return check(path, read_json(path), FIELDS[name], MEND) if path.is_file() else {}


def config_of(folder: Path) -> dict:
    """Return tokenizer_config.json, completed by what older versions wrote into other files."""
    about = fields_of(folder, CONFIG)
    if about.get("added_tokens_decoder") is None:
        older = fields_of(folder, NAMED)
        if any(type(about.get(name)) is list and about[name] for name in EXTRA):
            older = {name: value for name, value in older.items() if name not in EXTRA}
        about = about | older
    name, path = about.get("tokenizer_class"), folder / "config.json"
    if name is None and path.is_file():
        field = {"tokenizer_class": FIELDS[CONFIG]["tokenizer_class"]}
        name = check(path, read_json(path), field, MEND).get("tokenizer_class")
    return about | {"tokenizer_class": name}


def read_settings(folder: Path, one: dict, vocab: dict[str, int]) -> Settings:
    """Return what the tokenizer of a folder does with a text beyond merges. Raises InputError.

    `one` is its tokenizer.json, checked, or empty, and `vocab` its {token: id}.
    """
    about = config_of(folder)
    as_it_is = bool(one) and about["tokenizer_class"] in WHOLE
    added, named = added_tokens(folder, about, one, vocab, as_it_is)

    spaced = bool(about.get("add_prefix_space"))
    if one:
        here = one["pre_tokenizer"]["add_prefix_space"]
        if as_it_is and about.get("add_prefix_space") is None:
            spaced = here
        mend = f"{CONFIG} and {ONE_FILE} have to agree"
        check(folder / ONE_FILE, one, {"pre_tokenizer.add_prefix_space": one_of(spaced)}, mend)
        before, after = template_of(folder / ONE_FILE, one)
        for field, ids in (("add_bos_token", before), ("add_eos_token", after)):
            check(folder / CONFIG, about, {field: optional(one_of(*{False, bool(ids)}))}, mend)
    else:  # GPT2Tokenizer builds it from these
        ids = {field: [added[t].id] if t in added else [] for field, t in named.items()}
        before = ids.get("bos_token", []) if about.get("add_bos_token") else []
        after = ids.get("eos_token", []) if about.get("add_eos_token") else []
    end = added[END_OF_TEXT].id if END_OF_TEXT in added else vocab.get(END_OF_TEXT)
    if after not in ([], [end]):
        path = folder / (ONE_FILE if one else CONFIG)
        what = "post_processor.single" if one else "add_eos_token"
        raise InputError(
            f"{path}: {what} ends texts with a token that is not {END_OF_TEXT}; {MEND}"
        )
    split = bool(about.get("split_special_tokens"))
    return Settings(added, spaced, tuple(before), bool(after), split)


def added_tokens(
    folder: Path, about: dict, one: dict, vocab: dict[str, int], as_it_is: bool
) -> tuple[dict[str, Added], dict[str, str]]:
    """Return {content: token} of all added tokens, with ids, and {name: content} of special ones.

    Raises InputError for an id that transformers would not give to it: those that the vocabulary
    has not get the next ones, in order.
    """
    default = {} if as_it_is else dict.fromkeys(SPECIAL[:3], END_OF_TEXT)  # of GPT2Tokenizer
    fields = default | about
    names = [*SPECIAL, *(n for n in fields if n.endswith("_token") and type(fields[n]) is str)]
    special = {n: fields[n] for n in dict.fromkeys(names) if fields.get(n) is not None}
    more = []
    for name in EXTRA:
        if type(fields.get(name)) is dict:
            special |= fields[name]
        else:
            more = fields.get(name) or more
    special = {n: Added.of(value, special=True) for n, value in special.items()}
    more = [Added.of(value, special=True) for value in more]
    special_contents = {t.content for t in (*special.values(), *more)}

    declared = numbered_tokens(folder, about, one, special_contents, as_it_is)
    known = vocab.keys() | {t.content for t in declared}
    if default and END_OF_TEXT not in known and END_OF_TEXT not in about.values():
        special = {n: t for n, t in special.items() if n in about}  # it is missed later on
    added, free = {}, len(vocab)
    for t in (*declared, *special.values(), *more):
        if t.content not in added:
            i = vocab.get(t.content, free)
            free += i == free
            of_special = t.special or t.content in special_contents
            added[t.content] = dataclasses.replace(t, id=i, special=of_special)
        if t.id not in (None, added[t.content].id):
            raise InputError(
                f"{folder}: the added token {t.content!r} has the id {t.id}, but the vocabulary "
                f"gives it {added[t.content].id}; save the tokenizer again with transformers"
            )
    return added, {name: t.content for name, t in special.items()}


def numbered_tokens(
    folder: Path, about: dict, one: dict, special: set[str], as_it_is: bool
) -> list[Added]:
    """Return the tokens that the files list with their ids, in the order in which they are added.

    A GPT2Tokenizer takes those of tokenizer_config.json and no others, if that has any. So a list
    in tokenizer.json that has more is refused.
    """
    in_one = [Added.of(value, value["id"]) for value in one.get("added_tokens") or []]
    decoder, path = about.get("added_tokens_decoder"), folder / CONFIG
    if decoder is None:
        path = folder / ADDED
        decoder = {i: {"content": t, "special": t in special} for t, i in old_list(path).items()}
        listed = in_one
    else:
        listed = []
    if strange := [i for i in map(str, decoder) if not re.fullmatch(r"[0-9]{1,9}", i)]:
        raise InputError(f"{path}: added_tokens_decoder has {strange[0]!r}, not an id; {MEND}")
    others = [Added.of(value, int(i)) for i, value in decoder.items()]
    if as_it_is:
        return in_one + sorted(others, key=lambda t: t.id)
    contents = special | {t.content for t in (*listed, *others)}
    if lost := [t.content for t in in_one if t.content not in contents]:
        raise InputError(
            f"{folder / ONE_FILE}: added_tokens has {lost[0]!r}, which added_tokens_decoder of "
            f"{CONFIG} has not; save the tokenizer again with transformers"
        )
    return sorted((*listed, *others), key=lambda t: t.id)


def old_list(path: Path) -> dict[str, int]:
    """Return what added_tokens.json says, checked: {content: id}."""
    fields = fields_of(path.parent, path.name)
    if strange := [name for name in fields if not content_fits(name)]:
        raise InputError(f"{path}: {strange[0]!r:.40} is not {content.words}; {MEND}")
    return fields


def template_of(path: Path, one: dict) -> tuple[list[int], list[int]]:
    """Return the ids that tokenizer.json puts before and after a text. Raises InputError."""
    processor = one.get("post_processor") or {}
    steps = processor.get("processors") or [processor]
    templates = [step for step in steps if step.get("type") == "TemplateProcessing"]
    if not templates:
        return [], []
    (template, *more), name = templates, "post_processor"
    fields = {f"{name}.{field}": kind for field, kind in TEMPLATE.items()}
    check(path, {name: template}, fields, MEND)
    parts, sides = template["single"], [[]]
    for part in parts:
        if "Sequence" in part:
            sides.append([])
        else:
            ids = template["special_tokens"].get(part["SpecialToken"]["id"], {}).get("ids")
            sides[-1] += ids or []
            if not ids:
                more.append(part)
    if len(sides) != 2 or more:
        raise InputError(f"{path}: {name}.single is not a text with special tokens around; {MEND}")
    return sides[0], sides[1]
