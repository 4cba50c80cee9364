"""A run as the peft library saves it: a LoRA, a prompt or a prefix, without the base weights.

Names and layouts are those of `LoraConfig`, `PromptEmbedding` and `PrefixEncoder` there.
"""

import json

import torch

from minigpt.export.tokenizer_files import tokenizer_files
from minigpt.peft import method_of
from minigpt.runs import Run

# C channels, L blocks, H heads, D = C // H, N vectors of a prompt or prefix, r rank of a LoRA

HOW_TO_OPEN = """\
from peft import PeftModel
from transformers import AutoTokenizer, GPT2ForSequenceClassification
base = GPT2ForSequenceClassification.from_pretrained(
    {base!r}, id2label={labels}, pad_token_id={pad}, ignore_mismatched_sizes=True
).float()
model = PeftModel.from_pretrained(base, {to!r}).eval()
tokenizer = AutoTokenizer.from_pretrained({to!r})
"""
ONE_AT_A_TIME = "# one text at a time: peft reads the last place of a batch, padding or not"
ON_THE_RIGHT = 'tokenizer.padding_side = "right"'


def how_to_open(run: Run, to: str) -> str:
    """Return the lines of Python that open the folder `to`."""
    base, labels = name_of_base(run), dict(enumerate(run.labels))
    lines = HOW_TO_OPEN.format(to=to, base=base, labels=labels, pad=run.tokenizer.eot_token)
    return lines + (ONE_AT_A_TIME if method_of(run.recipe) == "prompt" else ON_THE_RIGHT)


def name_of_base(run: Run) -> str:
    """Return by what name other tools open the base: on the Hub, or as a folder of this machine."""
    return run.checkpoint.repository or str(run.checkpoint.folder)


def files_of(run: Run) -> dict:
    """Return {name: text or tensors} of a run's LoRA, prompt or prefix, and of its head."""
    config, tensors = lora_of(run) if method_of(run.recipe) == "lora" else virtual_tokens_of(run)
    config = {
        "task_type": "SEQ_CLS",
        "base_model_name_or_path": name_of_base(run),
        "inference_mode": True,
        **config,
        "modules_to_save": ["score"],
    }
    return {
        "adapter_config.json": json.dumps(config, indent=2) + "\n",
        "adapter_model.safetensors": {n: t.detach().contiguous() for n, t in tensors.items()},
        **tokenizer_files(run, run.tokenizer.eot_token),
    }


def lora_of(run: Run) -> tuple[dict, dict]:
    """Return the config's own fields and the tensors of a LoRA."""
    trunk, recipe, ending = run.model.transformer, run.recipe, ".lora_A"
    layers = [n.removesuffix(ending) for n, _ in trunk.named_parameters() if n.endswith(ending)]
    config = {
        "peft_type": "LORA",
        "r": recipe["lora"],
        "lora_alpha": recipe["lora_alpha"],
        "lora_dropout": recipe["lora_dropout"],
        "target_modules": [f"transformer.{name}" for name in layers],
        "fan_in_fan_out": True,  # weights are (in, out)
    }
    tensors = {"base_model.model.score.weight": run.model.score.weight}
    for name in layers:  # theirs are (r, in) and (out, r)
        layer, theirs = trunk.get_submodule(name), f"base_model.model.transformer.{name}"
        tensors[f"{theirs}.lora_A.weight"] = layer.lora_A.T
        tensors[f"{theirs}.lora_B.weight"] = layer.lora_B.T
    return config, tensors


def virtual_tokens_of(run: Run) -> tuple[dict, dict]:
    """Return the config's own fields and the tensors of a prompt or a prefix."""
    trunk, sizes, method = run.model.transformer, run.checkpoint.config, method_of(run.recipe)
    config = {
        "peft_type": {"prompt": "PROMPT_TUNING", "prefix": "PREFIX_TUNING"}[method],
        "num_virtual_tokens": run.recipe[method],
        "token_dim": sizes.n_embd,
        "num_layers": sizes.n_layer,
        "num_attention_heads": sizes.n_head,
        "num_transformer_submodules": 1,
    }
    if method == "prompt":
        vectors = trunk.wte.prompt  # (N, C)
    else:
        pairs = torch.stack((trunk.prefix.keys, trunk.prefix.values), 1)  # (L, 2, H, N, D)
        vectors = pairs.permute(3, 0, 1, 2, 4).flatten(1)  # (N, L 2 C)
    tensors = {"base_model.score.weight": run.model.score.weight, "prompt_embeddings": vectors}
    return config, tensors
