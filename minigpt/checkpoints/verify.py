"""What the files of a checkpoint must hold: the core opens them without looking.

config.json against a table of fields; the names, types and shapes of model.safetensors, or of its
shards, against the config, from their headers alone.
"""

import dataclasses
import re
from pathlib import Path

import safetensors
import torch

from minigpt.checkpoints.settings import ADDED, CONFIG, NAMED, ONE_FILE
from minigpt.config import GPT2Config
from minigpt.edge.errors import InputError, first_few
from minigpt.edge.fields import (
    Kind,
    check,
    number,
    one_of,
    optional,
    read_json,
    whole,
)
from minigpt.edge.files import part_of
from minigpt.model import GPT2
from minigpt.weights import parameters_in

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"  # in its place, with the names of several shards
FILES = ("config.json", "vocab.json", "merges.txt", WEIGHTS)
PEFT = "adapter_config.json"
SMALL = (PEFT, "config.json", "vocab.json", "merges.txt", ONE_FILE, CONFIG, NAMED, ADDED)
OTHER_WEIGHTS = ("pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5")
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
SHARDS = {
    "weight_map": Kind("an object with tensors in it", lambda value: type(value) is dict and value),
    "weight_map.*": Kind(
        "the name of a .safetensors file beside it",
        lambda name: type(name) is str and re.fullmatch(r"[\w-][\w.-]{0,200}\.safetensors", name),
    ),
}

# What other classes put on a trunk, by the first part of the names of its tensors
HEADS = {
    "classifier": "GPT2ForTokenClassification, which labels single tokens",
    "multiple_choice_head": "GPT2DoubleHeadsModel, which chooses among endings",
    "qa_outputs": "GPT2ForQuestionAnswering, which looks for answers in a text",
    "v_head": "AutoModelForCausalLMWithValueHead of trl, which estimates rewards",
}


def check_small_files(folder: Path, where: str) -> None:
    """Raise InputError unless a checkpoint's files but its weights are there, as plain files.

    `where` is what errors call the folder: its path, or the repository that it is of.
    """
    for name in (*SMALL, WEIGHTS, INDEX):
        part_of(folder, name)
    if (folder / PEFT).is_file():
        raise InputError(
            f"{where} is of the peft library; merge it there (merge_and_unload) and save it whole"
        )
    instead = FILES[1:3] if (folder / ONE_FILE).is_file() else ()
    for name in FILES[:3]:
        if not (folder / name).is_file() and name not in instead:
            raise InputError(f"{where}/{name} is missing; a checkpoint is {', '.join(FILES)}")


def check_weights_there(folder: Path, where: str, others: list[str]) -> None:
    """Raise InputError unless there are weights to read; `others` are those that are not read."""
    if (folder / WEIGHTS).is_file() or (folder / INDEX).is_file():
        return
    if others:
        raise InputError(
            f"{where} has its weights in {others[0]}; save them again as {WEIGHTS} (in "
            f"transformers, with its class: from_pretrained({where!r}).save_pretrained(FOLDER))"
        )
    raise InputError(f"{where}/{WEIGHTS} is missing; a checkpoint is {', '.join(FILES)}")


def check_files(folder: Path) -> None:
    """Raise InputError unless the files of a checkpoint are there, and are plain files."""
    check_small_files(folder, str(folder))
    others = [name for name in OTHER_WEIGHTS if (folder / name).is_file()]
    check_weights_there(folder, str(folder), others)
    for path in weight_files(folder):
        part_of(folder, path.name)
        if not path.is_file():
            raise InputError(f"{path} is missing, which {INDEX} names")


def weight_files(folder: Path) -> list[Path]:
    """Return model.safetensors, or its index and all shards that are named. Raises InputError."""
    index = folder / INDEX
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    shards = check(index, read_json(index), SHARDS)["weight_map"].values()
    return [index, *(folder / name for name in sorted({*shards}))]


def read_config(path: Path) -> GPT2Config:
    """Return the sizes in a config.json. Raises InputError for those of no GPT-2."""
    fields = check(path, read_json(path), {"model_type": one_of("gpt2")})
    config = GPT2Config.from_json(check(path, DEFAULTS | fields, FIELDS))
    if config.n_embd % config.n_head:
        raise InputError(
            f"{path}: n_embd {config.n_embd} is not a multiple of n_head {config.n_head}"
        )
    return config


def check_tensors(folder: Path, config: GPT2Config) -> None:
    """Raise InputError unless the weights in a folder are those of such a GPT-2, and no others.

    Names may have the prefix `transformer.`; masks, `lm_head` and `score` may be there, too.
    """
    files = weight_files(folder)
    path, stored = files[0], headers_of(files)
    check_names(path, stored)
    with torch.device("meta"):
        wanted = {name: tuple(p.shape) for name, p in GPT2(config).named_parameters()}
    names = parameters_in(stored)
    if missing := sorted(wanted.keys() - names.keys()):
        raise InputError(f"{path} lacks {first_few(missing)}, which config.json asks for")
    if extra := sorted(names.keys() - wanted.keys()):
        raise InputError(f"{path} has {first_few(extra)}, which config.json does not ask for")
    for name, shape in wanted.items():
        path, dtype, stored_shape = stored[names[name]]
        if dtype not in FLOATS:
            raise InputError(f"{path}: {name} is {dtype}, not one of {first_few(FLOATS)}")
        if stored_shape != shape:
            raise InputError(
                f"{path}: {name} has shape {list(stored_shape)}, but config.json says {list(shape)}"
            )


def headers_of(files: list[Path]) -> dict[str, tuple[Path, str, tuple]]:
    """Return {name: (file, type, shape)} of all tensors in the files of the weights.

    Raises InputError if one cannot be read, or if an index and its shards disagree.
    """
    first, stored = files[0], {}
    for path in files[1:] or files:
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                for name in [*file.keys()]:
                    if name in stored:
                        raise InputError(f"{path} has {name}, as another shard has")
                    one = file.get_slice(name)
                    stored[name] = path, one.get_dtype(), tuple(one.get_shape())
        except (safetensors.SafetensorError, OSError) as error:
            raise InputError(f"{path} cannot be read ({error}); fetch it again") from None
    if len(files) > 1:
        place = {name: path.name for name, (path, *_) in stored.items()}
        if wrong := sorted(dict(read_json(first)["weight_map"].items() ^ place.items())):
            raise InputError(f"{first} does not agree with its shards about {first_few(wrong)}")
    return stored


def check_names(path: Path, stored) -> None:
    """Raise InputError for a model inside of a wrapper, or with another head; say what to do."""
    inner = {n: n.removesuffix("wte.weight") for n in stored if n.endswith("wte.weight")}
    prefixes = [p.removesuffix("transformer.") for p in inner.values()]
    prefixes += ["_orig_mod."] * any("_orig_mod." in name for name in stored)
    if prefix := max(prefixes, key=len, default=""):
        raise InputError(
            f"{path} has names with {prefix!r}, as a wrapper (DataParallel, torch.compile, a class "
            f"around the model) saves them; save the model inside, or rename: {{n.replace("
            f"{prefix!r}, ''): t for n, t in safetensors.torch.load_file(file).items()}}"
        )
    for name in sorted(stored):
        if what := HEADS.get(name.split(".")[0]):
            raise InputError(
                f"{path} has {name}, the head of a {what}; neither predict nor train.py reads it. "
                "Save its trunk alone, in transformers: "
                f"GPT2Model.from_pretrained({str(path.parent)!r}).save_pretrained(FOLDER)"
            )
    if len({name.removeprefix("transformer.") for name in stored}) < len(stored):
        raise InputError(f"{path} has some tensors twice, with and without `transformer.`")
