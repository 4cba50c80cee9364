"""A trunk for reading only: its matrices laid out, once, as the CPU's kernels want them.

A product of two matrices begins by copying both into a layout that suits the processor. The weights
of what is not trained are the same in every batch, so that copy can be kept: short batches are then
as fast as long ones. And oneDNN's kernel adds the bias and applies GELU while a result is still in
the processor's cache. The numbers are the same, to rounding; model.py knows nothing of all this.
"""

import copy

import torch
from torch import nn

from minigpt.fast.int8 import hooked, put_int8_in
from minigpt.model import GPT2, MLP, Attention, Linear

onednn = torch.ops.mkldnn  # private, but what TorchInductor runs: torch/_inductor/mkldnn_ir.py
OPERATIONS = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")


class PackedLinear(nn.Module):
    """x Wᵀ + b, and GELU in its tanh form if wanted, for a weight that will not change."""

    def __init__(self, weight, bias=None, gelu=False):  # (out, in), (out,)
        super().__init__()
        self.weight, self.bias = onednn._reorder_linear_weight(weight.detach()), bias
        self.activation = "gelu" if gelu else "none"

    def forward(self, x):  # (..., in) -> (..., out)
        return onednn._linear_pointwise(x, self.weight, self.bias, self.activation, [], "tanh")


def can_pack(tensor) -> bool:
    """Return whether there are such kernels for a tensor's type and device: on x86 processors."""
    there = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
    there = there and all(hasattr(onednn, name) for name in OPERATIONS)
    x86 = "AVX" in torch.backends.cpu.get_cpu_capability()
    fast = tensor.dtype == torch.float32 or onednn._is_mkldnn_bf16_supported()
    return there and x86 and fast and tensor.device.type == "cpu"


def packed(trunk: GPT2, end: int, dtype=torch.float32) -> GPT2:
    """Return a copy that reads up to block `end` (as in partial.py), in `dtype`, in eval mode.

    It shares with the trunk what it need not convert; blocks from `end` on are not to be run. With
    int8, its linear layers are in int8, and all else is in float32.
    """
    held = torch.float32 if dtype == torch.int8 else dtype
    above = {id(p) for block in trunk.h[end:] for p in block.parameters()}
    same = {
        id(p): p if id(p) in above else nn.Parameter(p.detach().to(held), requires_grad=False)
        for p in trunk.parameters()
    }
    trunk = copy.deepcopy(trunk, same).eval()  # the modules are copied, the parameters are as said
    if dtype == torch.int8:
        for block in trunk.h[:end]:
            put_int8_in(block)
    elif can_pack(trunk.wte.weight):
        for block in trunk.h[:end]:
            pack_in(block)
    return trunk


def packed_to_generate(trunk: GPT2) -> GPT2:
    """Return a packed copy of a trunk, output matrix included: each token reads all of it."""
    copied = packed(trunk, len(trunk.h) + 1)
    if can_pack(trunk.wte.weight):
        copied.next_token_logits = PackedLinear(trunk.wte.weight).forward
    return copied


def pack_in(module: nn.Module) -> None:
    """Put packed layers in place of the linear ones, GELU within the one before it.

    What was put in their place (peft.py), or hung on them, stays as it is.
    """
    for name, child in list(module.named_children()):
        if type(child) in (Attention, MLP):
            pack_in(child)
        elif type(child) is Linear and not hooked(child):
            act = module.act if isinstance(module, MLP) and name == "c_fc" else None
            gelu = type(act) is nn.GELU and act.approximate == "tanh"
            setattr(module, name, PackedLinear(child.weight.T, child.bias, gelu))
            if gelu:
                module.act = nn.Identity()
