"""The training loop by hand, the learning rate's schedule, and evaluation.

Knows nothing of files, text, signals or progress bars: the caller of `fit` sees each step, and may
save, show or stop.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from minigpt.data import TOKENS_AT_ONCE, shuffled_batches, token_batches
from minigpt.freeze import train_mode, trainable

# N texts, B of them in a batch, K classes; P heads that are trained side by side (head.py)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to train, whatever it is that is trained."""

    epochs: int
    batch_size: int  # texts at once
    lr: float  # the highest learning rate
    weight_decay: float | tuple[float, ...]  # several for heads alone: see head.py
    warmup: float  # share of the steps in which the learning rate rises
    clip: float  # the largest norm of the gradient, over all parameters together
    accumulate: int  # batches per step
    seed: int


@dataclasses.dataclass
class Training:
    """All that the next step depends on: to save it is to be able to resume.

    (Dropout depends on more: on the state of torch's random generators.)
    """

    model: nn.Module
    recipe: Recipe
    texts: int  # to train on, in each epoch
    optimizer: torch.optim.Optimizer
    step: int = 0  # steps taken
    # For each step of this epoch, the sum of the losses of its texts
    losses: list[torch.Tensor] = dataclasses.field(default_factory=list)
    # A line for each evaluation; the first, epoch 0, is that of the start
    history: list[dict] = dataclasses.field(default_factory=list)
    gradient_norm: torch.Tensor | None = None  # of the last step, before clipping: to look at
    class_weights: torch.Tensor | None = None  # (K,) in the loss; none: each text counts the same

    @property
    def steps_per_epoch(self) -> int:
        batches = math.ceil(self.texts / self.recipe.batch_size)
        return math.ceil(batches / self.recipe.accumulate)

    @property
    def steps(self) -> int:
        """The number of steps of the whole training."""
        return self.recipe.epochs * self.steps_per_epoch

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What is trained."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    @classmethod
    def of(cls, model: nn.Module, recipe: Recipe, texts: int) -> "Training":
        """Return a training, not yet begun, of all parameters that require a gradient."""
        return cls(model, recipe, texts, make_optimizer(model, recipe))


class Alone:
    """One process, which does all of the work: parallel.Group stands in its place for several."""

    def share(self, texts):
        """Return the part of a batch that this process computes."""
        return texts

    def add_up(self, total: torch.Tensor, parameters: list[nn.Parameter]) -> None:
        """Replace a sum, and the gradients, by those over all processes: here there is one."""

    def map(self, function: Callable, batches: list):
        """Yield function(batch) for each batch, in order."""
        return map(function, batches)


ALONE = Alone()


def fit(t: Training, train, dev, group=ALONE):
    """Train, and yield after each step and each evaluation: the caller may save, show or stop.

    As a generator it goes only as far as it is asked to: `train_to_end` asks for all. `train` and
    `dev` are examples that serve batches, such as `Tokens`. An epoch that was left in the middle
    continues with its next step. Epoch 0 is the start.

    What the last epoch leaves is kept. The rate has fallen almost to 0 by then, and no epoch is
    chosen by dev: the lowest loss on dev often comes early, when the model is less sure of itself,
    of its mistakes too, while later epochs are right as often or more; and on a small dev set the
    best of many accuracies is mostly luck (head.py chooses one of six, not of every epoch).
    docs/tuning.md has the three compared.
    """
    if not t.history:
        validate(t, dev, group)
        yield t
    for epoch in range(len(t.history), t.recipe.epochs + 1):  # history has a line for each one done
        train_mode(t.model)
        taken = t.step - (epoch - 1) * t.steps_per_epoch  # steps of this epoch, before it was left
        for batches in steps_of(train, t.recipe, epoch)[taken:]:
            take_step(t, train, batches, group)
            yield t
        validate(t, dev, group)
        yield t


def train_to_end(t: Training, train, dev) -> None:
    """Train without a stop."""
    for _ in fit(t, train, dev):
        pass


def steps_of(examples, recipe: Recipe, epoch: int) -> list[list[np.ndarray]]:
    """Return the batches of each step of an epoch: a function of the seed and the epoch alone."""
    order = shuffled_batches(examples.lengths, recipe.batch_size, recipe.seed, epoch)
    return [order[i : i + recipe.accumulate] for i in range(0, len(order), recipe.accumulate)]


def loss_of(t: Training, logits, labels, reduction="mean") -> torch.Tensor:  # (B, K), (B,)
    """Return the cross-entropy, each class with its weight if there are weights.

    Of P heads that are trained side by side, (B, K, P), the mean.
    """
    weights, heads = t.class_weights, 1
    if weights is not None:
        weights = weights.to(logits)
    if logits.dim() == 3:
        heads = logits.size(2)
        labels = labels[:, None].expand(-1, heads)
    loss = F.cross_entropy(logits, labels, weights, reduction=reduction)
    return loss / heads if reduction == "sum" else loss


def take_step(t: Training, examples, batches: list[np.ndarray], group=ALONE) -> None:
    """Take one gradient step over batches of texts.

    Each text has the same weight (or that of its class), however the step is cut into batches, and
    those into the shares of several processes.
    """
    device = t.parameters[0].device
    total, n = torch.zeros((), device=device), sum(map(len, batches))
    for share in map(group.share, batches):
        if len(share):
            inputs, labels = examples.batch(share)
            *inputs, labels = to_device([*inputs, labels], device)
            loss = loss_of(t, t.model(*inputs), labels, "sum")
            (loss / n).backward()
            total += loss.detach()
    group.add_up(total, t.parameters)
    t.gradient_norm = nn.utils.clip_grad_norm_(t.parameters, t.recipe.clip)
    for part in t.optimizer.param_groups:
        part["lr"] = learning_rate(t.step, t.steps, t.recipe)
    t.optimizer.step()
    t.optimizer.zero_grad()
    t.step += 1
    t.losses.append(total)  # as a tensor, so that the host need not wait for a GPU


def validate(t: Training, dev, group=ALONE) -> None:
    """Evaluate on dev, before training or after an epoch, and add a line to the history.

    The loss on train is the mean of the steps' losses: nothing in train is read again. Of P heads,
    it is their mean, and the other figures are those of the head with the lowest loss on dev.
    """
    line = {"epoch": len(t.history), "step": t.step}
    if t.losses:
        line["lr"] = learning_rate(t.step - 1, t.steps, t.recipe)
        line["train_loss"] = torch.stack(t.losses).sum().item() / t.texts
    logits = evaluate(t.model, dev, group)
    if logits.dim() == 3:
        losses = torch.stack([loss_of(t, head, dev.labels) for head in logits.unbind(2)])
        line["head"] = losses.argmin().item()
        logits = logits[..., line["head"]]
    line["dev_loss"] = loss_of(t, logits, dev.labels).item()
    line["dev_accuracy"] = (logits.argmax(1) == dev.labels).double().mean().item()
    t.losses = []
    t.history.append(line)


def learning_rate(step: int, steps: int, recipe: Recipe) -> float:
    """Return the rate of one step: a linear rise, then half a cosine down towards 0."""
    warm = recipe.warmup * steps
    if step < warm:
        return recipe.lr * (step + 1) / (warm + 1)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019) over what is trained; biases and gains do not decay."""
    parameters = trainable(model).values()
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.lr, fused=True)


def evaluate(model: nn.Module, examples, group=ALONE) -> torch.Tensor:  # -> (N, K)
    """Return the logits of all examples, in their order, on the CPU."""
    return read_all(model.eval(), examples, next(model.parameters()).device, group)


@torch.no_grad()
def read_all(
    function: Callable, examples, device, group=ALONE, tokens: int | None = None
) -> torch.Tensor:  # (N, ...)
    """Return function(*inputs) of all examples, in their order, on the CPU: `tokens` at once."""
    device = torch.device(device)

    def read(indices):
        inputs, _ = examples.batch(indices)
        return function(*to_device(inputs, device))

    batches = token_batches(examples.sizes, tokens or TOKENS_AT_ONCE[device.type])
    results = torch.cat(list(group.map(read, batches))).cpu()
    in_order = torch.empty_like(results)
    in_order[torch.from_numpy(np.concatenate(batches))] = results
    return in_order


def to_device(inputs, device: torch.device) -> list:
    """Move the tensors of a batch to where the model is; a GPU fetches them in the background."""
    if device.type == "cuda":
        inputs = [x.pin_memory() if torch.is_tensor(x) and not x.is_cuda else x for x in inputs]
    return [x.to(device, non_blocking=True) if torch.is_tensor(x) else x for x in inputs]
