"""The random values with which pre-training begins."""

import math

import torch

from minigpt.model import GPT2


@torch.no_grad()
def initialize(model: GPT2, seed: int = 0) -> GPT2:
    """Fill a trunk with random values, as GPT-2's training began (Radford et al. 2019)."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.named_parameters():
        if name.endswith("bias"):
            tensor.zero_()
        elif tensor.dim() == 1:  # the gain of a layer norm
            tensor.fill_(1.0)
        else:
            std = 0.01 if name == "wpe.weight" else 0.02
            if name.endswith("c_proj.weight"):  # 2 of them add to the residual stream in each block
                std /= math.sqrt(2 * model.config.n_layer)
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * std)
    return model
