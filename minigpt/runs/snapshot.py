"""A training between two steps as named tensors, and back. Knows nothing of files.

weights.NAME                        what is trained
step., exp_avg., exp_avg_sq.NAME    Adam's count of steps and its two moments (Kingma & Ba 2015)
losses                              of this epoch's steps
random.RANK.DEVICE                  the state of each random generator of each process
"""

import torch

from minigpt.edge.errors import InputError, first_few
from minigpt.fit import Training
from minigpt.freeze import trainable
from minigpt.parallel.group import Group

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def generators(t: Training) -> dict:
    """Return what has get_rng_state() and set_rng_state() for each device in use."""
    device = t.parameters[0].device.type
    return {"cpu": torch} | ({} if device == "cpu" else {device: torch.get_device_module(device)})


def snapshot(t: Training, group: Group) -> dict[str, torch.Tensor]:
    """Return all that the next steps depend on. The processes of a group do this together."""
    tensors = {}
    for name, p in trainable(t.model).items():
        tensors |= {f"weights.{name}": p}
        tensors |= {f"{key}.{name}": value for key, value in t.optimizer.state[p].items()}
    tensors["losses"] = torch.stack(t.losses) if t.losses else torch.zeros(0)
    for device, random in generators(t).items():
        states = group.gather(random.get_rng_state().to(group.device))
        tensors |= {f"random.{rank}.{device}": state for rank, state in enumerate(states)}
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


@torch.no_grad()
def restore(tensors: dict, t: Training, group: Group) -> None:
    """Put a snapshot back into a training whose `step` and `history` are already what they were.

    Raises InputError, before anything is changed, for a snapshot of another training or a damaged
    one.
    """
    expected, parameters = snapshot(t, group), trainable(t.model)
    expected["losses"] = torch.zeros(t.step - (len(t.history) - 1) * t.steps_per_epoch)
    for name, p in parameters.items():
        for key in MOMENTS if t.step else ():
            expected[f"{key}.{name}"] = torch.zeros(() if key == "step" else p.shape)
    wrong = tensors.keys() ^ expected.keys()
    for name in tensors.keys() & expected.keys():
        like, tensor = expected[name], tensors[name]
        same = (tensor.dtype, tensor.shape) == (like.dtype, like.shape)
        if not same or not tensor.isfinite().all():
            wrong.add(name)
    try:
        for device, random in generators(t).items():
            if not wrong:
                random.set_rng_state(tensors[f"random.{group.rank}.{device}"])
    except RuntimeError:  # the right size, but not the state of a generator
        wrong.add("random")
    if wrong:
        raise InputError(f"the saved state does not fit: {first_few(sorted(wrong))}")
    for name, p in parameters.items():
        p.copy_(tensors[f"weights.{name}"])
        if t.step:
            t.optimizer.state[p] = {key: tensors[f"{key}.{name}"].to(p.device) for key in MOMENTS}
    t.losses = [loss.to(p.device) for loss in tensors["losses"]]
