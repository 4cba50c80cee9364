"""Linear layers in int8, for a trunk that is only read.

A weight is a whole number from -127 to 127, times a scale of its output. What comes in is one from
0 to 255, less a zero point, times a scale of its token: GPT-2 has a few enormous channels, above
all at the first token, and one scale for all tokens would leave nothing of the others. So

    y = token scale * output scale * Σ (u - zero point) w + b

in whole numbers up to the sum (Dettmers et al. 2022, LLM.int8(), 3.1: vector-wise quantization).
All else, from layer norms to the residual stream, stays in float32.
"""

import math

import torch
from torch import nn

from minigpt.edge.errors import InputError

onednn = torch.ops.onednn  # private, but what TorchInductor runs: torch/_inductor/mkldnn_ir.py
OPERATIONS = ("qlinear_prepack", "qlinear_pointwise")
ROUND = 1.5 * 2**23  # a float32 near this has no fraction, and its low bits are a whole number
BEHIND_GELU = 24  # the zero point there: GELU gives -0.17 at least, and most is for the rest
SMALLEST_SCALE = 1e-30  # a token of zeros, or the weights of an output, divide by it


def has_int8() -> bool:
    """Return whether this CPU multiplies int8 faster than float32, and torch uses it."""
    there = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
    there = there and all(hasattr(onednn, name) for name in OPERATIONS)
    return there and torch.cpu._is_vnni_supported()  # of AVX-512; a CPU with AMX has it, too


def check_int8(device: str) -> None:
    """Raise InputError where nothing can be computed in int8."""
    if device != "cpu":
        raise InputError(f"int8 is for CPUs, and this is {device}; choose the device cpu")
    if not has_int8():
        raise InputError(
            "int8 needs a CPU with AVX-512 VNNI or AMX, which this one does not have; "
            "train with another --dtype, or export the run and predict with that, in float32"
        )


class Int8Linear(nn.Module):
    """x Wᵀ + b in int8, for a weight that will not change. `zero_point` stands for 0.0."""

    def __init__(self, weight, bias, zero_point=128):  # (out, in), (out,)
        super().__init__()
        weight, self.bias, self.zero_point = weight.detach(), bias.detach(), zero_point
        self.scale = weight.abs().amax(1).div(127).clamp(min=SMALLEST_SCALE)  # (out,)
        quantized = (weight / self.scale[:, None]).round().to(torch.int8)
        self.weight = onednn.qlinear_prepack(quantized.contiguous(), None)
        self.no_offset = torch.zeros(len(weight), dtype=torch.int32)  # of the weights
        self.offset = weight.new_full(weight.shape[1:], ROUND + zero_point)  # (in,)

    def forward(self, x):  # (..., in) -> (..., out)
        u, scale = self.quantized(x)
        weights = self.weight, self.scale, self.no_offset
        how = 1.0, 0, torch.float32, "none", [], ""  # nothing is done to the sums
        y = onednn.qlinear_pointwise(u, 1.0, self.zero_point, *weights, None, *how)
        return torch.addcmul(self.bias, y, scale, out=y)

    def quantized(self, x):  # (..., in) -> (..., in) uint8, (..., 1)
        """Return u and the scales of the tokens: x is about (u - zero point) * scale.

        Adding ROUND rounds to the nearest whole number, half to even, in the same pass over memory
        that multiplies; torch has no faster way from float32 to uint8.
        """
        high, low = x.amax(-1, keepdim=True), x.amin(-1, keepdim=True)
        scale = torch.maximum(high / (255 - self.zero_point), low / -self.zero_point)
        scale.clamp_(min=SMALLEST_SCALE)
        shifted = torch.addcmul(self.offset, x, 1 / scale)
        return shifted.view(torch.int32).to(torch.uint8).contiguous(), scale


class TanhGELU(nn.Module):
    """GELU in its tanh form, to rounding: x (1 + tanh z) / 2 = x / (1 + exp(-2 z)).

    The right side is made of a few passes over memory for which torch has fast kernels.
    """

    def __init__(self):
        super().__init__()
        self.slope = torch.tensor(2 * math.sqrt(2 / math.pi))  # of 2 z, at 0

    def forward(self, x):
        # 2 z = slope * (x + 0.044715 x³)
        z = torch.addcmul(self.slope, x, x, value=0.044715 * self.slope.item()).mul_(x)
        return z.sigmoid_().mul_(x)
