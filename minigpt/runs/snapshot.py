"""A training between two steps as named tensors, and back. Knows nothing of files.

weights.NAME, best.NAME             what learns: now, and at the best epoch so far
step., exp_avg., exp_avg_sq.NAME    Adam's count of steps and its two moments (Kingma & Ba 2015)
losses                              of this epoch's steps
random.RANK.DEVICE                  each random generator of each process
"""

import torch
from torch import nn

from minigpt.edge.errors import InputError, first_few
from minigpt.parallel.group import Group

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def learning_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return what learns, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def generators(model: nn.Module) -> dict:
    """Return what has get_rng_state() and set_rng_state() for each device in use."""
    device = next(model.parameters()).device.type
    return {"cpu": torch} | ({} if device == "cpu" else {device: torch.get_device_module(device)})


def snapshot(model, optimizer, best: dict, losses: list, group: Group) -> dict[str, torch.Tensor]:
    """Return all that the next steps depend on. The processes of a group do this together."""
    tensors = {f"best.{name}": tensor for name, tensor in best.items()}
    for name, p in learning_of(model).items():
        tensors |= {f"weights.{name}": p}
        tensors |= {f"{key}.{name}": value for key, value in optimizer.state[p].items()}
    tensors["losses"] = torch.stack(losses) if losses else torch.zeros(0)
    for device, random in generators(model).items():
        everyone = group.gather(random.get_rng_state().to(group.device))
        tensors |= {f"random.{rank}.{device}": state for rank, state in enumerate(everyone)}
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


@torch.no_grad()
def restore(
    tensors: dict, model, optimizer, best: dict, group: Group, steps: int, of_epoch: int
) -> list[torch.Tensor]:
    """Put back a snapshot, into a training that has just begun; return this epoch's losses.

    `steps` is how many had been taken, `of_epoch` how many of them in this epoch. Raises
    InputError, before anything is changed, for a snapshot of another training or a damaged one.
    """
    expected, learning = snapshot(model, optimizer, best, [], group), learning_of(model)
    expected["losses"] = torch.zeros(of_epoch)
    for name, p in learning.items():
        for key in MOMENTS if steps else ():
            expected[f"{key}.{name}"] = torch.zeros(() if key == "step" else p.shape)
    wrong = tensors.keys() ^ expected.keys()
    for name in tensors.keys() & expected.keys():
        like, tensor = expected[name], tensors[name]
        same = (tensor.dtype, tensor.shape) == (like.dtype, like.shape)
        if not same or not tensor.isfinite().all():
            wrong.add(name)
    own = {device: tensors.get(f"random.{group.rank}.{device}") for device in generators(model)}
    try:
        for device, random in generators(model).items():
            if not wrong:
                random.set_rng_state(own[device])
    except RuntimeError:  # the right size, and no state of a generator
        wrong.add("random")
    if wrong:
        raise InputError(f"the saved state does not fit: {first_few(sorted(wrong))}")
    for name, p in learning.items():
        p.copy_(tensors[f"weights.{name}"])
        best[name].copy_(tensors[f"best.{name}"])
        if steps:
            optimizer.state[p] = {key: tensors[f"{key}.{name}"].to(p.device) for key in MOMENTS}
    return [loss.to(p.device) for loss in tensors["losses"]]
