"""A trunk for reading only: its matrices laid out, once, as the CPU's kernels want them.

A product of two matrices begins by copying both into a layout that suits the processor. The weights
of what is not trained are the same in every batch, so that copy can be kept: short batches are then
as fast as long ones. And oneDNN's kernel adds the bias and applies GELU while a result is still in
the processor's cache. The numbers are the same, to rounding; model.py knows nothing of all this.
"""

import copy

import torch
from torch import nn

from minigpt.fast.int8 import BEHIND_GELU, Int8Linear, TanhGELU
from minigpt.model import GPT2, Block, Linear

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
    fast = tensor.dtype == torch.float32
    fast = fast or (tensor.dtype == torch.bfloat16 and onednn._is_mkldnn_bf16_supported())
    return there and x86 and fast and tensor.device.type == "cpu"


def packed(trunk: GPT2, end: int, dtype=torch.float32) -> GPT2:
    """Return a copy that reads up to block `end` (as in partial.py), in `dtype`, in eval mode.

    It shares with the trunk what it need not convert; blocks from `end` on are not to be run. With
    int8, its linear layers are in int8, and all else is in float32.
    """
    int8 = dtype == torch.int8
    held = torch.float32 if int8 else dtype
    above = {id(p) for block in trunk.h[end:] for p in block.parameters()}
    same = {
        id(p): p if id(p) in above else nn.Parameter(p.detach().to(held), requires_grad=False)
        for p in trunk.parameters()
    }
    trunk = copy.deepcopy(trunk, same).eval()  # the modules are copied, the parameters are as said
    if int8 or can_pack(trunk.wte.weight):
        for block in trunk.h[:end]:
            put_int8_in(block) if int8 else pack_in(block)
    return trunk


def packed_to_generate(trunk: GPT2) -> GPT2:
    """Return a packed copy of a trunk, output matrix included: each token reads all of it."""
    copied = packed(trunk, len(trunk.h) + 1)
    if can_pack(trunk.wte.weight):
        copied.next_token_logits = PackedLinear(trunk.wte.weight).forward
    return copied


def pack_in(block: Block) -> None:
    """Put packed layers in place of the linear ones, and GELU within the one before it."""
    for module, name, layer in linear_layers(block):
        gelu = name == "c_fc" and is_tanh_gelu(module.act)
        setattr(module, name, PackedLinear(layer.weight.T, layer.bias, gelu))
        if gelu:
            module.act = nn.Identity()


def put_int8_in(block: Block) -> None:
    """Put layers in int8 in place of the linear ones, and a faster GELU in place of torch's."""
    gelu = is_tanh_gelu(block.mlp.act)
    for module, name, layer in linear_layers(block):
        behind_gelu = gelu and module is block.mlp and name == "c_proj"
        zero_point = BEHIND_GELU if behind_gelu else 128
        setattr(module, name, Int8Linear(layer.weight.T, layer.bias, zero_point))
    if gelu:
        block.mlp.act = TanhGELU()


def linear_layers(block: Block) -> list[tuple[nn.Module, str, Linear]]:
    """Return the linear layers, each with the module it is in and its name there.

    What was put in their place (peft/), or has something hung on it, is not among them.
    """
    return [
        (module, name, layer)
        for module in (block.attn, block.mlp)
        for name, layer in module.named_children()
        if type(layer) is Linear and not hooked(layer)
    ]


def is_tanh_gelu(act: nn.Module) -> bool:
    return type(act) is nn.GELU and act.approximate == "tanh" and not hooked(act)


def hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)
