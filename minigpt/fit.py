"""The training loop by hand, the learning rate's schedule, and evaluation.

Knows nothing of files, freezing policies or text: it is given a model whose parameters either
require a gradient or do not, sets of examples that serve batches (`Tokens` or `Kept`), and a
journal to write down how far it has come.
"""

import dataclasses
import math
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from minigpt.data import AT_ONCE, shuffled_batches, token_batches
from minigpt.edge.errors import InputError
from minigpt.freeze import train_mode
from minigpt.parallel.group import ALONE, Group
from minigpt.runs.journal import Journal
from minigpt.runs.snapshot import learning_of, restore, snapshot


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to train, whatever it is that learns."""

    epochs: int
    batch_size: int  # texts at once
    lr: float  # the highest learning rate
    weight_decay: float
    warmup: float  # share of the steps in which the learning rate rises
    clip: float  # the longest gradient, over all parameters together
    accumulate: int  # batches to a step
    seed: int


def recipe_of(flags: dict) -> Recipe:
    """Pick a recipe out of flags of the same names."""
    return Recipe(**{field.name: flags[field.name] for field in dataclasses.fields(Recipe)})


def learning_rate(step: int, steps: int, recipe: Recipe) -> float:
    """Return the rate of one step: a linear rise, then half a cosine down towards 0."""
    warm = recipe.warmup * steps
    if step < warm:
        return recipe.lr * (step + 1) / (warm + 1)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019) over what learns; biases and gains do not decay."""
    learning = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learning if p.dim() >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in learning if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.lr, fused=True)


def to_device(inputs, device: torch.device) -> list:
    """Move a batch to where the model is; a GPU fetches it by itself while the host goes on."""
    if device.type == "cuda":
        inputs = [x.pin_memory() if torch.is_tensor(x) and not x.is_cuda else x for x in inputs]
    return [x.to(device, non_blocking=True) if torch.is_tensor(x) else x for x in inputs]


@torch.no_grad()
def evaluate(model: nn.Module, examples, group: Group = ALONE) -> torch.Tensor:  # -> (N, K)
    """Return the logits of all examples, in their order, on the CPU."""
    device = next(model.parameters()).device
    model.eval()

    def read(texts):
        inputs, _ = examples.batch(texts)
        return model(*to_device(inputs, device))

    batches = token_batches(examples.rows, AT_ONCE[device.type])
    logits = torch.cat(list(group.map(read, batches))).cpu()
    in_order = torch.empty_like(logits)
    in_order[torch.from_numpy(np.concatenate(batches))] = logits
    return in_order


def take_step(model: nn.Module, optimizer, batches: list, examples: int, clip: float, group=ALONE):
    """Take one step over batches, each ((inputs, ...), labels).

    `examples` counts those of the whole step: each weighs the same, however the step was cut into
    batches, and those into shares of the group's processes. Returns the sum of their losses, and
    the gradient's norm before it was clipped: as tensors, so that the host need not wait for a GPU.
    """
    device = next(model.parameters()).device
    learning = [p for part in optimizer.param_groups for p in part["params"]]
    total = torch.zeros((), device=device)
    for inputs, labels in batches:
        logits = model(*to_device(inputs, device))
        loss = F.cross_entropy(logits, *to_device([labels], device), reduction="sum")
        (loss / examples).backward()
        total += loss.detach()
    if group.size > 1:
        for parameter in learning:
            if parameter.grad is None:  # none of the step's examples fell to this process
                parameter.grad = torch.zeros_like(parameter)
        group.add_up([total, *(p.grad for p in learning)])
    norm = nn.utils.clip_grad_norm_(learning, clip)
    optimizer.step()
    optimizer.zero_grad()
    return total, norm


def fit(
    model: nn.Module,
    train,
    dev,
    recipe: Recipe,
    group: Group = ALONE,
    quiet: bool = True,
    journal: Journal | None = None,
    phase: str = "trunk",
) -> tuple[dict, list]:
    """Train what requires a gradient; leave the model at the epoch with the lowest loss on dev.

    Returns the line of history of that epoch, and those of all epochs; epoch 0 is the start. The
    loss decides, not the accuracy: on a small dev set the best of many accuracies is mostly luck.
    `journal` saves the state as it goes; one that has found a state has training go on from there,
    as if it had never stopped. Raises InputError when a loss or gradient is no number.
    """
    journal = journal or Journal()
    optimizer = make_optimizer(model, recipe)
    best = {name: p.detach().clone() for name, p in learning_of(model).items()}
    batches = math.ceil(len(train) / recipe.batch_size)
    per_epoch = math.ceil(batches / recipe.accumulate)  # steps
    steps = recipe.epochs * per_epoch
    step, losses, unread = 0, [], []  # losses of this epoch; steps whose numbers are not yet read
    began = shown = time.monotonic()
    found = journal.take_up(phase, recipe.epochs, per_epoch)
    if found:
        step, history, began = found.step, found.history, began - found.seconds
        of_epoch = step - (len(history) - 1) * per_epoch
        losses = restore(found.tensors, model, optimizer, best, group, step, of_epoch)
        found.tensors.clear()  # which may be gigabytes
    else:
        history = [{"epoch": 0, "step": 0} | measure(evaluate(model, dev, group), dev.labels)]
        if not math.isfinite(history[0]["dev_loss"]):
            raise InputError("the loss is no number before training has begun: damaged weights?")

    def now():
        """Return what to save: nothing that came after a step gone wrong."""
        check_numbers(unread, step, steps, recipe, journal)
        if not all(p.isfinite().all() for p in learning_of(model).values()):
            raise no_number("norm of the weights", step, steps, recipe, journal)
        return time.monotonic() - began, snapshot(model, optimizer, best, losses, group)

    if not found:
        journal.note(history[0])
        journal.save(step, *now())
    hide = quiet or group.rank > 0 or None  # None: hidden where there is no terminal
    bar = tqdm(total=recipe.epochs * len(train), unit=" examples", disable=hide)
    with bar, journal.listening():
        bar.update(step * len(train) // per_epoch)
        for epoch in range(len(history), recipe.epochs + 1):
            train_mode(model)
            order = shuffled_batches(train.lengths, recipe.batch_size, recipe.seed, epoch)
            done = step - (epoch - 1) * per_epoch
            for i in range(done * recipe.accumulate, len(order), recipe.accumulate):
                lr = learning_rate(step, steps, recipe)
                for part in optimizer.param_groups:
                    part["lr"] = lr
                parts = order[i : i + recipe.accumulate]
                examples = sum(map(len, parts))
                shares = [share for texts in parts if len(share := group.share(texts))]
                served = [train.batch(share) for share in shares]
                loss, norm = take_step(model, optimizer, served, examples, recipe.clip, group)
                losses.append(loss)
                unread.append(torch.stack((loss, norm)))
                step += 1
                if loss.device.type == "cpu":  # elsewhere the host would wait
                    check_numbers(unread, step, steps, recipe, journal)
                bar.update(examples)
                if not bar.disable and time.monotonic() - shown > 1:  # here the host does wait
                    shown = time.monotonic()
                    figures = {"loss": f"{loss.item() / examples:.3f}", "lr": f"{lr:.1e}"}
                    bar.set_postfix(figures, refresh=False)
                journal.pause(step, now)

            check_numbers(unread, step, steps, recipe, journal)
            line = {"epoch": epoch, "step": step, "lr": learning_rate(step - 1, steps, recipe)}
            line["train_loss"] = torch.stack(losses).sum().item() / len(train)
            line |= measure(evaluate(model, dev, group), dev.labels)
            line["seconds"] = round(time.monotonic() - began, 3)
            if not math.isfinite(line["dev_loss"]):
                raise no_number("loss on dev", step, steps, recipe, journal)
            bar.set_description(f"dev accuracy {line['dev_accuracy']:.1%}", refresh=False)
            if line["dev_loss"] < min(earlier["dev_loss"] for earlier in history):
                best = {name: p.detach().clone() for name, p in learning_of(model).items()}
            losses = []
            history.append(line)
            journal.note(line)
            journal.save(step, *now())
            journal.pause(step, now)
    with torch.no_grad():
        for name, parameter in learning_of(model).items():
            parameter.copy_(best[name])
    return min(history, key=lambda line: line["dev_loss"]), history


def check_numbers(unread: list, step: int, steps: int, recipe: Recipe, journal: Journal) -> None:
    """Raise InputError if one of the last steps had a loss or gradient that is no number.

    `unread` has the (loss, gradient's norm) of each step up to `step`, and is emptied.
    """
    if not unread:
        return
    finite = torch.stack(unread).isfinite().all(1).tolist()
    unread.clear()
    if not all(finite):
        bad = step - len(finite) + 1 + finite.index(False)
        raise no_number("loss or the gradient", bad, steps, recipe, journal)


def no_number(what: str, step: int, steps: int, recipe: Recipe, journal: Journal) -> InputError:
    """Return the error for a training gone wrong: where, at what rate, and what to do."""
    lr = learning_rate(step - 1, steps, recipe)
    return InputError(
        f"the {what} is no number any more at step {step} of {steps} (learning rate {lr:.1e}); "
        f"start again, and try a tenth of --lr {recipe.lr:g}{journal.whereabouts()}"
    )


def measure(logits, labels) -> dict[str, float]:  # (N, K), (N,)
    """Return what decides which epoch is kept."""
    return {
        "dev_loss": F.cross_entropy(logits, labels).item(),
        "dev_accuracy": (logits.argmax(1) == labels).double().mean().item(),
    }
