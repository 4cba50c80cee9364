"""Matrix products for training on an x86 CPU, by oneDNN: torch's own, by MKL, can be slower.

The numbers are the same, to rounding. packing.py is for what does not change, and faster still.
"""

import torch
from torch.autograd.function import once_differentiable

from minigpt.fast.packing import can_pack, onednn
from minigpt.fast.partial import PartialClassifier
from minigpt.model import Linear


def multiply(x, weight, bias=None):  # (..., in), (out, in), (out,) -> (..., out)
    """Return x Wᵀ + b in float32, of a weight that is laid out in any order."""
    return onednn._linear_pointwise(x, weight, bias, "none", [], "")


class Product(torch.autograd.Function):
    """y = x Wᵀ + b, as F.linear has it, with ∂x = ∂y W, ∂W = ∂yᵀ x and ∂b = Σ ∂y."""

    @staticmethod
    def forward(ctx, x, weight, bias):  # (..., in), (out, in), (out,) -> (..., out)
        x_needs, weight_needs, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if weight_needs else None, weight if x_needs else None)
        return multiply(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):  # (..., out) -> (..., in), (out, in), (out,)
        (x, weight), (x_needs, weight_needs, bias_needs) = ctx.saved_tensors, ctx.needs_input_grad
        rows = dy.flatten(0, -2)
        dx = multiply(dy, weight.T) if x_needs else None
        # In the order of the files, (in, out), so that the gradient need not be transposed
        dw = multiply(x.flatten(0, -2).T, rows.T).T if weight_needs else None
        return dx, dw, rows.sum(0) if bias_needs else None


def use_onednn(model: PartialClassifier) -> None:
    """Have the trunk's linear layers computed by oneDNN, where it can: in float32 on x86 CPUs.

    In bfloat16, torch uses it already.
    """
    if model.dtype != torch.bfloat16 and can_pack(model.score.weight):
        for module in model.transformer.modules():
            if isinstance(module, Linear):
                module.product = Product.apply
