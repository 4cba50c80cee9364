"""A trunk as the page contains it, to read texts that are typed there: float16, in base64."""

import base64

import safetensors.torch
import tiktoken

from minigpt.checkpoints import read_vocabulary
from minigpt.explain.study import Study

MOST = 8_000_000  # parameters: 21.4 MB in base64, so that the page stays under 25 MB


def for_page(study: Study) -> dict | str:
    """Return the trunk as gpt2.js opens it: config, vocab and weights; or, in words, why not."""
    parameters = sum(p.numel() for p in study.trunk.parameters())
    if parameters > MOST:
        return (
            f"its trunk has {parameters:,} parameters, and a page of its own contains one of "
            f"{MOST:,} at most"
        )
    if type(study.tokenizer) is not tiktoken.Encoding:
        return "its tokenizer does more than to merge bytes, which gpt2.js does not"
    return {
        "config": study.trunk.config.to_json(),
        "vocab": read_vocabulary(study.checkpoint.folder).merged,
        "weights": base64.b64encode(float16_file(study)).decode(),
    }


def float16_file(study: Study) -> bytes:
    """Return the trunk's parameters as a .safetensors file."""
    named = study.trunk.named_parameters()
    return safetensors.torch.save({name: p.detach().cpu().half() for name, p in named})
