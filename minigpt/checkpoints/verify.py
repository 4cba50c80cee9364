"""What the files of a checkpoint must hold: the core opens them without looking.

config.json against a table of fields; the names, types and shapes of model.safetensors against the
config, from its header alone; vocabulary and merges against each other.
"""

import dataclasses
from pathlib import Path

import safetensors
import torch

from minigpt.config import GPT2Config
from minigpt.edge.errors import InputError, first_few
from minigpt.edge.fields import (
    Kind,
    array,
    check,
    number,
    one_of,
    optional,
    read_json,
    table,
    whole,
)
from minigpt.edge.files import part_of
from minigpt.model import GPT2
from minigpt.tokenizer import END_OF_TEXT, LONGEST, byte_of_character
from minigpt.weights import parameters_in

FILES = ("config.json", "vocab.json", "merges.txt", "model.safetensors")
ONE_FILE = "tokenizer.json"  # instead of vocab.json and merges.txt, from newer transformers
FLOATS = ("F32", "F16", "BF16")

# Fields that change what is computed: the one value that is GPT-2's. Others are ignored.
VARIANTS = {
    "add_cross_attention": False,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "tie_word_embeddings": True,
}
size, rate = whole(1, 2**24), number(0, 1)
FIELDS = {
    "activation_function": one_of("gelu_new", "gelu_pytorch_tanh"),  # two names for one function
    **{name: one_of(value) for name, value in VARIANTS.items()},
    **dict.fromkeys(("vocab_size", "n_positions", "n_embd", "n_head"), size),
    "n_layer": whole(1, 1000),  # to build more of them would take hours
    "n_inner": optional(size),
    **dict.fromkeys(("layer_norm_epsilon", "embd_pdrop", "attn_pdrop", "resid_pdrop"), rate),
}
DEFAULTS = {"activation_function": "gelu_new"} | VARIANTS | dataclasses.asdict(GPT2Config())
ONE_FILE_FIELDS = {
    "normalizer": Kind("null", lambda value: not value),
    "pre_tokenizer.type": one_of("ByteLevel"),
    "pre_tokenizer.add_prefix_space": one_of(False),
    "model.vocab": table,
    "model.merges": array,
}


def check_files(folder: Path) -> None:
    """Raise InputError unless the files of a checkpoint are there, and are plain files."""
    if (folder / "adapter_config.json").is_file():
        raise InputError(
            f"{folder} is of the peft library; merge it there (merge_and_unload) and save it whole"
        )
    for name in (*FILES, ONE_FILE, "tokenizer_config.json"):
        part_of(folder, name)
    for name in ("model.safetensors.index.json", "pytorch_model.bin"):
        if (folder / name).is_file() and not (folder / "model.safetensors").is_file():
            raise InputError(
                f"{folder} has its weights in {name}; save them again as one model.safetensors "
                '(in transformers: save_pretrained(folder, max_shard_size="100GB"))'
            )
    instead = FILES[1:3] if (folder / ONE_FILE).is_file() else ()
    for name in FILES:
        if not (folder / name).is_file() and name not in instead:
            raise InputError(f"{folder / name} is missing; a checkpoint is {', '.join(FILES)}")


def read_config(path: Path) -> GPT2Config:
    """Return the sizes in a config.json. Raises InputError for those of no GPT-2."""
    fields = check(path, read_json(path), {"model_type": one_of("gpt2")})
    config = GPT2Config.from_json(check(path, DEFAULTS | fields, FIELDS))
    if config.n_embd % config.n_head:
        raise InputError(
            f"{path}: n_embd {config.n_embd} is not a multiple of n_head {config.n_head}"
        )
    return config


def check_tensors(path: Path, config: GPT2Config) -> None:
    """Raise InputError unless a model.safetensors has the tensors of such a GPT-2, and no others.

    Names may have the prefix `transformer.`; masks, `lm_head` and `score` may be there, too.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            stored = list(file.keys())
            slices = {name: file.get_slice(name) for name in stored}
            header = {name: (s.get_dtype(), tuple(s.get_shape())) for name, s in slices.items()}
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read ({error}); fetch it again") from None
    if config.n_layer > len(stored):  # a number in a file must not take hours
        raise InputError(f"{path} lacks most of the blocks that config.json asks for")
    if len({name.removeprefix("transformer.") for name in stored}) < len(stored):
        raise InputError(f"{path} has some tensors twice, with and without `transformer.`")
    with torch.device("meta"):
        wanted = {name: tuple(p.shape) for name, p in GPT2(config).named_parameters()}
    names = parameters_in(stored)
    if missing := sorted(wanted.keys() - names.keys()):
        raise InputError(f"{path} lacks {first_few(missing)}, which config.json asks for")
    if extra := sorted(names.keys() - wanted.keys()):
        raise InputError(f"{path} has {first_few(extra)}, which config.json does not ask for")
    for name, shape in wanted.items():
        dtype, stored_shape = header[names[name]]
        if dtype not in FLOATS:
            raise InputError(f"{path}: {name} is {dtype}, not one of {first_few(FLOATS)}")
        if stored_shape != shape:
            raise InputError(
                f"{path}: {name} has shape {list(stored_shape)}, but config.json says {list(shape)}"
            )


def read_vocabulary(folder: Path) -> tuple[dict[str, int], list[list[str]], list[Path]]:
    """Return {token: id}, the pairs to merge, in order, and the files that these are in.

    Those are vocab.json and merges.txt, or tokenizer.json alone. Raises InputError.
    """
    files = [folder / "vocab.json", folder / "merges.txt"]
    if not files[0].exists() and (folder / ONE_FILE).exists():
        files = [folder / ONE_FILE]
    for file in files:
        if not file.exists():
            raise InputError(f"{file} is missing; a checkpoint brings its own")
    if len(files) == 1:
        mend = "GPT-2 encodes texts as they are; put its vocab.json and merges.txt there"
        model = check(files[0], read_json(files[0]), ONE_FILE_FIELDS, mend)["model"]
        vocab, merges = model["vocab"], model["merges"]
        merges = [pair.split(" ") if type(pair) is str else pair for pair in merges]
    else:
        vocab = read_json(files[0])
        try:
            lines = files[1].read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise InputError(f"{files[1]}: not UTF-8 ({error})") from None
        merges = [line.split(" ") for line in lines[lines[0].startswith("#version") :] if line]
    if type(vocab) is not dict or not all(type(i) is int for i in vocab.values()):
        raise InputError(f"{files[0]} is not a table of tokens and their ids, whole numbers")
    if not all(type(pair) is list and all(type(p) is str for p in pair) for pair in merges):
        raise InputError(f"{files[-1]} has merges that are not pairs of tokens")
    return vocab, merges, files


def check_vocabulary(vocab: dict, merges: list, files: list[Path], vocab_size: int) -> None:
    """Raise InputError unless this is a GPT-2 vocabulary, for a model with `vocab_size` tokens."""
    vocab_file, merges_file = files[0], files[-1]
    if END_OF_TEXT not in vocab:
        raise InputError(f"{vocab_file} has no {END_OF_TEXT}: not a GPT-2 vocabulary")
    if not 0 <= vocab_size - len(vocab) < 128:  # some models round the number of rows up
        raise InputError(
            f"{vocab_file} has {len(vocab)} tokens, the model {vocab_size}: they do not belong "
            "together; put the model's own there"
        )
    byte_of = byte_of_character()
    tokens = vocab.keys() - {END_OF_TEXT}
    if strange := {*"".join(tokens)} - byte_of.keys():
        raise InputError(f"{vocab_file}: character {min(strange)!r} stands for no byte")
    if max(map(len, tokens), default=0) > LONGEST:  # a character is a byte
        raise InputError(f"{vocab_file} has a token of more than {LONGEST} bytes")

    # Merges are done in the order of ids (`make_encoding`), so that ids have to rise from line to
    # line of merges.txt, as they do in GPT-2's own files
    ids = [vocab.get("".join(pair), -1) for pair in merges]
    bytes_ = [vocab.get(character, -1) for character in byte_of]
    rising = [max(bytes_), *ids]
    if min(bytes_) < 0 or any(a >= b for a, b in zip(rising, ids, strict=False)):
        raise InputError(f"{merges_file} and {vocab_file} do not belong together")
    if len(tokens) != len(bytes_) + len(ids) or sorted(vocab.values()) != [*range(len(vocab))]:
        raise InputError(
            f"{vocab_file} has tokens that {merges_file} does not make, or gaps between its ids"
        )
