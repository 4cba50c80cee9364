"""Parameter-efficient tuning: a few trainable parameters, added to a frozen trunk from outside.

LoRA and a prompt put a module with the same weights in another's place; adapters and a prefix hang
on hooks. So the trunk's own tensors keep their official names, and model.py knows nothing of this.

    added = put_on(trunk, {"lora": 8, "lora_alpha": 16.0, "lora_on": "c_attn", "lora_dropout": 0.0})
    merge(trunk)    # LoRA into the weights
"""

from minigpt.config import GPT2Config
from minigpt.edge.errors import InputError
from minigpt.model import GPT2
from minigpt.peft.adapter import add_adapters
from minigpt.peft.lora import LoRALinear, add_lora, merge
from minigpt.peft.prefix import add_prefix
from minigpt.peft.prompt import add_prompt

__all__ = ["METHODS", "LoRALinear", "merge", "method_of", "put_on", "room_for_text"]

METHODS = ("lora", "adapter", "prompt", "prefix")


def method_of(settings: dict) -> str | None:
    """Return which of the methods the settings ask for, if any."""
    return next((name for name in METHODS if settings.get(name) is not None), None)


def room_for_text(config: GPT2Config, settings: dict) -> tuple[int, int]:
    """Return the fewest and the most tokens to which a text can be cut, its end token included.

    A prompt or a prefix takes its room from the context.
    """
    taken = settings.get("prompt") or settings.get("prefix") or 0
    return 1 + settings["append_end"], config.n_positions - taken


def put_on(trunk: GPT2, settings: dict) -> set[str]:
    """Add to the trunk what the settings say; return the names of the parameters that it brings.

    Settings are the flags of train.py: "lora" R with "lora_alpha", "lora_on" and "lora_dropout";
    "adapter" R; "prompt" N; "prefix" N. LoRA and adapters go in the last "in_last" blocks, or in
    all. Raises InputError for what does not fit the trunk.
    """
    method, before = method_of(settings), {name for name, _ in trunk.named_parameters()}
    if method is None:
        return set()
    amount, context, width = settings[method], trunk.config.n_positions, trunk.config.n_embd
    if method in ("prompt", "prefix"):
        if not 1 <= amount < context:
            raise InputError(f"--{method} {amount}: 1 to {context - 1} leave room for a text")
    elif not 1 <= amount <= width:
        raise InputError(f"--{method} {amount}: it can be 1 to {width}, the width of the trunk")
    last = len(trunk.h) if settings.get("in_last") is None else settings["in_last"]
    if not 1 <= last <= len(trunk.h):
        raise InputError(f"--in-last {last}: the trunk has blocks 1 to {len(trunk.h)}")

    if method == "lora":
        own = (settings[f"lora_{name}"] for name in ("alpha", "dropout", "on"))
        add_lora(trunk, amount, *own, last)
    elif method == "adapter":
        add_adapters(trunk, amount, last)
    elif method == "prompt":
        add_prompt(trunk, amount)
    else:
        add_prefix(trunk, amount)
    return {name for name, _ in trunk.named_parameters()} - before
