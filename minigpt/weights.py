"""Official safetensors <-> parameters: open, load, save.

The official layout is our layout: no tensor is transposed or renamed (but for a prefix), and those
of a float32 file are not even copied, but mapped from disk. Expects valid files:
`minigpt.checkpoints` verifies those that come from outside. Knows nothing of text or labels.
"""

import dataclasses
import json
import re
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from minigpt.config import GPT2Config
from minigpt.model import GPT2

# In the files, but no parameters of the trunk: causal masks, the output matrix (which is `wte`
# again), and a classifier's head. The whole name must match: "h.0.attn.c_attn.bias" is a
# parameter, and ends like the mask "h.0.attn.bias".
NOT_PARAMETERS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)|lm_head\.weight|score\.weight")


def parameters_in(stored) -> dict[str, str]:
    """Return {a parameter's name in the trunk: its name in the file} for the names of a file.

    GPT2LMHeadModel and GPT2ForSequenceClassification hold the trunk as `transformer`, so that
    files have names with and without this prefix.
    """
    names = {name.removeprefix("transformer."): name for name in stored}
    return {n: name for n, name in names.items() if not NOT_PARAMETERS.fullmatch(n)}


def open_tensors(path: Path, only=None) -> dict[str, torch.Tensor]:
    """Return the trunk's parameters in a model.safetensors (or `only` those named), in float32.

    They are mapped: a value is read from disk when it is first used, and nothing is copied unless
    the file is in float16 or bfloat16.
    """
    tensors = {}
    for shard in shards_of(path):
        with safetensors.safe_open(shard, framework="pt") as file:
            for name, stored in parameters_in(file.keys()).items():
                if only is None or name in only:
                    tensors[name] = file.get_tensor(stored).float()
    return tensors


def shards_of(path: Path) -> list[Path]:
    """Return a model.safetensors, or the shards that model.safetensors.index.json names instead."""
    index = path.with_name(f"{path.name}.index.json")
    if path.exists() or not index.exists():
        return [path]
    shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    return [path.with_name(shard) for shard in sorted(set(shards))]


def load_trunk(folder: Path, dropout: float | None = None) -> GPT2:
    """Open config.json and model.safetensors of a folder as a model in eval mode.

    Of a float32 file, its parameters *are* the mapped file, copy on write: what is trained is
    copied as it changes, and the file never does. `dropout` replaces the rates of config.json.
    """
    fields = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
    config = GPT2Config.from_json(fields)
    if dropout is not None:
        rates = dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), dropout)
        config = dataclasses.replace(config, **rates)
    with torch.device("meta"):  # tensors without memory: no random value is drawn to be replaced
        trunk = GPT2(config)
    trunk.load_state_dict(open_tensors(Path(folder, "model.safetensors")), assign=True)
    return trunk.eval()


def save_trunk(trunk: GPT2, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write config.json and model.safetensors in the official layout."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: p.detach().to("cpu", dtype) for name, p in trunk.named_parameters()}
    text = json.dumps(trunk.config.to_json(), indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    new = folder / "model.safetensors.new"  # not in place: the trunk may be mapped from that file
    safetensors.torch.save_file(tensors, new, {"format": "pt"})
    new.replace(folder / "model.safetensors")
