"""Matrix products by oneDNN, for what is trained on a CPU; torch's own, by MKL, use half of an AMD.

The same numbers, to rounding, from weights as they are. (packing.py is for what does not change.)
"""

import torch

from minigpt.fast.packing import can_pack, onednn
from minigpt.model import GPT2, Linear


def product(x, weight, bias=None):  # (..., in), (out, in), (out,) -> (..., out)
    return onednn._linear_pointwise(x, weight, bias, "none", [], "")


class OneDNNLinear(torch.autograd.Function):
    """F.linear and its gradients: y = x Wᵀ + b; ∂x = ∂y W, ∂W = ∂yᵀ x, ∂b = Σ ∂y."""

    @staticmethod
    def forward(ctx, x, weight, bias):  # (..., in), (out, in), (out,) -> (..., out)
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx, dy):  # (..., out) -> (..., in), (out, in), (out,)
        (x, weight), (x_needs, weight_needs, bias_needs) = ctx.saved_tensors, ctx.needs_input_grad
        rows = dy.flatten(0, -2)
        dx = product(dy, weight.T) if x_needs else None
        # (in, out), as the files have a weight, so that the gradient need not be transposed
        dw = product(x.flatten(0, -2).T, rows.T).T if weight_needs else None
        return dx, dw, rows.sum(0) if bias_needs else None


def use_onednn(trunk: GPT2) -> None:
    """Have the linear layers computed by oneDNN, where it has kernels for them: on x86 CPUs."""
    if can_pack(trunk.wte.weight):
        for module in trunk.modules():
            if isinstance(module, Linear):
                module.product = OneDNNLinear.apply
