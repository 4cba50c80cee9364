"""torch's optimizers without torch's compiler, which takes longer to load than a head to train.

torch marks methods of its optimizers as not to be compiled, and what marks them imports the
compiler when they are first called, though nothing is being compiled. This is private to torch, and
stands here alone: each mark is a function around the method, which functools keeps as
`__wrapped__`.
"""

import sys

import torch
from torch.optim import Adam, Optimizer

MARKED = ((Optimizer, "add_param_group"), (Optimizer, "zero_grad"), (Adam, "step"))


def leave_out_compiler() -> None:
    """Have this process's Adam and AdamW run without the compiler; they compute the same.

    Does nothing if it is loaded already, or if torch is not as it was from 2.9 to 2.13.
    """
    methods = [getattr(getattr(owner, name), "__wrapped__", None) for owner, name in MARKED]
    if "torch._dynamo" in sys.modules or None in methods:
        return
    methods[-1] = torch.no_grad()(methods[-1])  # which the mark of `step` does, too
    for (owner, name), method in zip(MARKED, methods, strict=True):
        setattr(owner, name, method)
