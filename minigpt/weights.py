"""A checkpoint's folder <-> parameters: find, download, verify, open, save.

The official layout is our layout: nothing is renamed, transposed or copied, and the tensors of a
float32 file are mapped from disk as they are. Knows nothing of text or labels.
"""

import dataclasses
import json
import re
import sys
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from minigpt.checkpoints.hub import NoNetwork, from_hub
from minigpt.config import GPT2Config
from minigpt.edge.errors import InputError, first_few
from minigpt.edge.files import part_of, write
from minigpt.fast.store import sha256_of
from minigpt.model import GPT2

BUNDLED = Path(__file__).parent.parent / "weights"  # tiny is there, and a place for gpt2
FILES = ("config.json", "vocab.json", "merges.txt", "model.safetensors")

# The official repositories: revision, and the sha256 of model.safetensors
OFFICIAL = {
    "gpt2": (
        "607a30d783dfa663caf39e06633721c8d4cfcd7e",
        "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707",
    ),
    "gpt2-medium": (
        "6dcaa7a952f72f9298047fd5137cd6e4f05f41da",
        "fc5a354a19255ad494f3d71549390baca1ccf61d1d822b9408971705c687c9cd",
    ),
    "gpt2-large": (
        "32b71b12589c2f8d625668d2335a01cac3249519",
        "5f47f3e12f91cd33b662ce7e433b6150ad5512b5884a2cee961b50e9c3bbebce",
    ),
    "gpt2-xl": (
        "15ea56dee5df4983c59b2538573817e1667135e2",
        "0f8b28eb05a8075f48b61b6f35332978c74fc7763fa9fb4051a1c30511736a6a",
    ),
}

# In the files, but no parameters of the trunk: causal masks, the output matrix (which is `wte`
# again: config.json says so), and a classifier's head.
# Mind the full match: "h.0.attn.c_attn.bias" ends like "h.0.attn.bias" and is a parameter.
NOT_PARAMETERS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)|lm_head\.weight|score\.weight")
FLOATS = ("F32", "F16", "BF16")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A folder in the official layout, whose model.safetensors has been read once for its hash."""

    name: str  # as the user may say it again
    folder: Path
    sha256: str
    config: GPT2Config


def find_checkpoint(name: str | None) -> Checkpoint:
    """Find what --weights names: an official size, `tiny`, a folder, or ORG/REPO on the Hub.

    None means gpt2 if it is at hand or can be downloaded, else the bundled tiny, saying so.
    Raises InputError if what was named cannot be had, or is not what it should be.
    """
    if name is None:
        try:
            return find_checkpoint("gpt2")
        except NoNetwork:
            said = "gpt2 is not here and cannot be downloaded: using the bundled weights/tiny"
            print(said, file=sys.stderr)
            return find_checkpoint("tiny")
    if name in OFFICIAL:
        revision, sha256 = OFFICIAL[name]
        folder = BUNDLED / name
        if not (folder / "model.safetensors").exists():
            folder = from_hub(f"openai-community/{name}", FILES, revision)
        return describe(name, folder, sha256)
    if name == "tiny":
        return describe(name, BUNDLED / name)
    if Path(name).is_dir():
        return describe(str(Path(name).resolve()), Path(name))
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith("."):
        return describe(name, from_hub(name, FILES))
    raise InputError(
        f"--weights {name}: no such folder; say {', '.join(OFFICIAL)}, tiny, a folder, or ORG/REPO"
    )


def describe(name: str, folder: Path, sha256: str | None = None) -> Checkpoint:
    """Read config.json and hash model.safetensors; raise InputError unless the hash is `sha256`."""
    if (folder / "adapter_config.json").is_file():
        raise InputError(
            f"{folder} is of the peft library; merge it there (merge_and_unload) and save it whole"
        )
    for file in (*FILES, "tokenizer.json", "tokenizer_config.json"):
        part_of(folder, file)
    for file in ("model.safetensors.index.json", "pytorch_model.bin"):
        if (folder / file).is_file() and not (folder / "model.safetensors").is_file():
            raise InputError(
                f"{folder} has its weights in {file}; save them again as one model.safetensors "
                '(in transformers: save_pretrained(folder, max_shard_size="100GB"))'
            )
    one_file = (folder / "tokenizer.json").is_file()  # instead of vocab.json and merges.txt
    for file in FILES:
        if not (folder / file).is_file() and not (one_file and file in FILES[1:3]):
            raise InputError(f"{folder / file} is missing; a checkpoint is {', '.join(FILES)}")
    try:
        config = GPT2Config.from_json(json.loads((folder / "config.json").read_bytes()))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{folder / 'config.json'}: {error}") from None
    found = sha256_of(folder / "model.safetensors")
    if sha256 not in (None, found):
        raise InputError(
            f"{folder / 'model.safetensors'} is not the official file: its sha256 is {found}, "
            f"not {sha256}; delete it and download it again"
        )
    return Checkpoint(name, folder, found, config)


def open_tensors(checkpoint: Checkpoint, only=None) -> dict[str, torch.Tensor]:
    """Return the trunk's parameters (or `only` those named), mapped from the file, in float32.

    Opens files with or without the prefix `transformer.`, with or without masks, in F32, F16 or
    BF16. Every name, type and shape is checked before a value is read. Raises InputError.
    """
    path = checkpoint.folder / "model.safetensors"
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names = list(file.keys())
            if checkpoint.config.n_layer > len(names):  # a number in a file must not take hours
                raise InputError(f"{path} lacks most of the blocks that config.json asks for")
            with torch.device("meta"):
                wanted = {n: tuple(p.shape) for n, p in GPT2(checkpoint.config).named_parameters()}
            stored = {name.removeprefix("transformer."): name for name in names}
            if len(stored) < len(names):
                raise InputError(f"{path} has some tensors twice, with and without `transformer.`")
            parameters = {n: s for n, s in stored.items() if not NOT_PARAMETERS.fullmatch(n)}
            if missing := sorted(wanted.keys() - parameters.keys()):
                raise InputError(f"{path} lacks {first_few(missing)}, which config.json asks for")
            if extra := sorted(parameters.keys() - wanted.keys()):
                raise InputError(f"{path} has {first_few(extra)}, which config.json knows not of")
            for name, shape in wanted.items():
                tensor = file.get_slice(parameters[name])
                if tensor.get_dtype() not in FLOATS:
                    raise InputError(
                        f"{path}: {name} is {tensor.get_dtype()}, not {first_few(FLOATS)}"
                    )
                if tuple(tensor.get_shape()) != shape:
                    raise InputError(
                        f"{path}: {name} has shape {tensor.get_shape()}, but config.json says "
                        f"{list(shape)}"
                    )
            names = wanted if only is None else only
            return {name: file.get_tensor(parameters[name]).float() for name in names}
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read ({error}); fetch it again") from None


def load_trunk(checkpoint: Checkpoint, dropout: float | None = None) -> GPT2:
    """Open a checkpoint as a model. Its tensors *are* the mapped file: no copy is made.

    `dropout` replaces the three rates of config.json.
    """
    config = checkpoint.config
    if dropout is not None:
        rates = dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), dropout)
        config = dataclasses.replace(config, **rates)
    with torch.device("meta"):  # no memory is taken, no random value drawn
        trunk = GPT2(config)
    trunk.load_state_dict(open_tensors(checkpoint), assign=True)
    return trunk.eval()


def save_trunk(trunk: GPT2, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write model.safetensors and config.json in the official layout."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: p.detach().to("cpu", dtype) for name, p in trunk.named_parameters()}
    write(folder / "model.safetensors", tensors)
    write(folder / "config.json", json.dumps(trunk.config.to_json(), indent=2) + "\n")
