"""Where the time of a trunk pass goes, at the 124M shape: python benchmarks/pass_profile.py

Random weights, 16 texts of 32 tokens. First the rate of each product of a block: torch's own and
oneDNN's of weights as the files have them, and oneDNN's of weights laid out beforehand, without and
with GELU in it; then the operations of a pass (torch.profiler).
"""

import statistics
import time

import torch
from torch.profiler import ProfilerActivity, profile

from minigpt.config import GPT2Config
from minigpt.fast.packing import PackedLinear, packed
from minigpt.fast.products import multiply
from minigpt.language.initialize import initialize
from minigpt.model import GPT2


def rate(product, operations: int) -> float:
    """Return billions of operations a second: the median of 15 times, after one for warming up."""
    seconds = []
    for _ in range(16):
        start = time.perf_counter()
        product()
        seconds.append(time.perf_counter() - start)
    return operations / statistics.median(seconds[1:]) / 1e9


@torch.no_grad()
def main():
    trunk = initialize(GPT2(GPT2Config())).eval()
    block, ids = trunk.h[0], torch.randint(50257, (16, 32))
    print(f"{'GFLOP/s, float32':20}{'torch':>8}{'oneDNN':>8}{'packed':>8}{'with GELU':>11}")
    for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
        linear = block.get_submodule(name)
        x = torch.randn(ids.numel(), len(linear.weight))
        ways = [linear, lambda x, own=linear: multiply(x, own.weight.T, own.bias)]
        ways += [PackedLinear(linear.weight.T, linear.bias, gelu) for gelu in (False, True)]
        rates = [
            rate(lambda way=way, x=x: way(x), 2 * len(x) * linear.weight.numel()) for way in ways
        ]
        print(f"{name:20}" + "".join(f"{rate:8.0f}" for rate in rates[:3]) + f"{rates[3]:11.0f}")
    start = time.perf_counter()
    ours = packed(trunk, len(trunk.h) + 1)
    print(f"packing all of it: {time.perf_counter() - start:.2f} s")
    for name, model in (("plain", trunk), ("packed", ours)):
        model(ids)
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            for _ in range(8):
                model(ids)
        rows = sorted(profiled.key_averages(), key=lambda row: -row.self_cpu_time_total)
        total = sum(row.self_cpu_time_total for row in rows)
        shares = [f"{row.key} {row.self_cpu_time_total / total:.1%}" for row in rows[:6]]
        print(f"{name} pass, {total / 8e3:.0f} ms: {', '.join(shares)}")


if __name__ == "__main__":
    main()
