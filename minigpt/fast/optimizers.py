"""Optimizers without what takes torch's own so long to begin: its compiler.

torch marks methods of its optimizers as not to be compiled, and what marks them imports the
compiler when they are first called, though nothing is being compiled: that takes longer than a head
takes to train. This is private to torch, and stands here alone: each mark is a function around the
method, which functools keeps as `__wrapped__`.
"""

import sys

import torch
from torch.optim import AdamW, Optimizer


@torch.no_grad()
def fused_step(self: AdamW) -> None:
    """Do what AdamW.step does with fused=True, by the same kernel, and nothing else.

    For matrices as small as a head's, torch's checks and its groups by device take most of a step.
    """
    for group in self.param_groups:
        lists = params, grads, averages, squares, _, steps = [[] for _ in range(6)]
        self._init_group(group, *lists)
        beta1, beta2 = group["betas"]
        same = {name: group[name] for name in ("lr", "weight_decay", "eps", "maximize")}
        if params:
            torch._foreach_add_(steps, 1)
            torch._fused_adamw_(
                *(params, grads, averages, squares, [], steps),
                **same,
                beta1=beta1,
                beta2=beta2,
                amsgrad=False,
            )


def leave_out_compiler() -> None:
    """Have this process's AdamW, with fused=True as fit.py has it, run without the compiler.

    Does nothing if that is loaded already, or if torch is not as it was from 2.9 to 2.13.
    """
    marked = [(Optimizer, "add_param_group"), (Optimizer, "zero_grad")]
    inside = [getattr(getattr(owner, name), "__wrapped__", None) for owner, name in marked]
    needed = hasattr(AdamW, "_init_group") and hasattr(torch, "_fused_adamw_")
    if "torch._dynamo" in sys.modules or None in inside or not needed:
        return
    for (owner, name), method in zip(marked, inside, strict=True):
        setattr(owner, name, method)
    AdamW.step = fused_step
