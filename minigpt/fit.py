"""The training loop by hand, the learning rate's schedule, and evaluation.

Knows nothing of files, freezing policies or text: it is given a model whose parameters either
require a gradient or do not, and sets of examples that serve batches (`Tokens` or `Vectors`).
"""

import dataclasses
import math
import time

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from minigpt.batches import shuffled_batches, token_batches
from minigpt.errors import InputError
from minigpt.freeze import train_mode


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
    """AdamW (Loshchilov & Hutter 2019) over what learns; matrices decay, biases and gains don't."""
    learning = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learning if p.dim() >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in learning if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.lr, fused=True)


@torch.no_grad()
def evaluate(model: nn.Module, examples) -> torch.Tensor:  # -> (N, K)
    """Return the logits of all examples, in their order, on the CPU."""
    device = next(model.parameters()).device
    model.eval()
    logits = None
    for rows in token_batches(examples.lengths):
        inputs, _ = examples.batch(rows)
        out = model(*(x.to(device) for x in inputs)).cpu()
        logits = out.new_empty(len(examples), out.size(1)) if logits is None else logits
        logits[torch.from_numpy(rows)] = out
    return logits


def take_step(model: nn.Module, optimizer, batches: list, clip: float):  # -> sum of losses
    """Take one step over one or more batches, each ((inputs, ...), labels).

    Every example weighs the same, however the step was cut into batches.
    """
    device = next(model.parameters()).device
    examples = sum(len(labels) for _, labels in batches)
    total = torch.zeros((), device=device)
    for inputs, labels in batches:
        logits = model(*(x.to(device) for x in inputs))
        loss = F.cross_entropy(logits, labels.to(device), reduction="sum")
        (loss / examples).backward()
        total += loss.detach()
    learning = [p for group in optimizer.param_groups for p in group["params"]]
    nn.utils.clip_grad_norm_(learning, clip)
    optimizer.step()
    optimizer.zero_grad()
    return total


def fit(model: nn.Module, train, dev, recipe: Recipe, quiet: bool = False) -> tuple[dict, list]:
    """Train what requires a gradient; leave the model at the epoch with the lowest loss on dev.

    Returns the line of history of that epoch, and those of all epochs; epoch 0 is the start. The
    loss decides, not the accuracy: on a small dev set the best of many accuracies is mostly luck.
    Raises InputError when the loss is no number.
    """
    optimizer = make_optimizer(model, recipe)
    learning = [p for p in model.parameters() if p.requires_grad]
    batches = math.ceil(len(train) / recipe.batch_size)
    steps = recipe.epochs * math.ceil(batches / recipe.accumulate)
    step, began = 0, time.monotonic()
    kept = {"epoch": 0, "step": 0} | measure(evaluate(model, dev), dev.labels)
    best, history = [p.detach().clone() for p in learning], [kept]
    examples = recipe.epochs * len(train)
    with tqdm(total=examples, unit=" examples", disable=quiet or None) as bar:
        for epoch in range(1, recipe.epochs + 1):
            train_mode(model)
            order = shuffled_batches(train.lengths, recipe.batch_size, recipe.seed, epoch)
            losses = []
            for i in range(0, len(order), recipe.accumulate):
                lr = learning_rate(step, steps, recipe)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                parts = order[i : i + recipe.accumulate]
                losses.append(
                    take_step(model, optimizer, [train.batch(rows) for rows in parts], recipe.clip)
                )
                step += 1
                seen = sum(map(len, parts))
                bar.update(seen)
                if step % 20 == 0:
                    now = {"loss": f"{losses[-1].item() / seen:.3f}", "lr": f"{lr:.1e}"}
                    bar.set_postfix(now, refresh=False)

            line = {"epoch": epoch, "step": step, "lr": lr}
            line["train_loss"] = torch.stack(losses).sum().item() / len(train)
            line |= measure(evaluate(model, dev), dev.labels)
            line["seconds"] = round(time.monotonic() - began, 3)
            history.append(line)
            bar.set_description(f"dev accuracy {line['dev_accuracy']:.1%}", refresh=False)
            if not math.isfinite(line["dev_loss"] + line["train_loss"]):
                raise InputError(
                    f"the loss is no number any more in epoch {epoch} (step {step}, learning rate "
                    f"{lr:.1e}); try a tenth of --lr {recipe.lr:g}"
                )
            if line["dev_loss"] < kept["dev_loss"]:
                kept, best = line, [p.detach().clone() for p in learning]
    with torch.no_grad():
        for parameter, value in zip(learning, best, strict=True):
            parameter.copy_(value)
    return kept, history


def measure(logits, labels) -> dict[str, float]:  # (N, K), (N,)
    """Return what decides which epoch is kept."""
    return {
        "dev_loss": F.cross_entropy(logits, labels).item(),
        "dev_accuracy": (logits.argmax(1) == labels).double().mean().item(),
    }
