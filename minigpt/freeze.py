"""Which tensors learn: the policy, the table of it, and the proof that the rest did not move.

Freezing is decided by the official name of a tensor, in one place: `names_to_learn`.
"""

import fnmatch

import torch

from minigpt.classifier import Classifier
from minigpt.edge.errors import InputError
from minigpt.model import GPT2
from minigpt.weights import Checkpoint, describe, open_tensors

PRESETS = {  # of --train-only
    "bitfit": "*.bias",  # Ben Zaken et al. 2021
    "norms": "*ln_?.*",  # gains and biases of the layer norms
}


def names_to_learn(
    trunk: GPT2,
    freeze_trunk: bool = False,
    train_last: int | None = None,
    train_only: str | None = None,
) -> set[str]:
    """Return the official names of the trunk's tensors that learn; the head always does.

    `freeze_trunk`: none. `train_last` N: those of the last N blocks and of ln_f. `train_only`:
    those that match one of the comma-separated globs, or of a preset's. None of the three: all.
    Raises InputError.
    """
    names = [name for name, _ in trunk.named_parameters()]
    if freeze_trunk:
        return set()
    if train_last is not None:
        blocks = len(trunk.h)
        if not 1 <= train_last <= blocks:
            raise InputError(f"--train-last {train_last}: the trunk has blocks 1 to {blocks}")
        last = tuple(f"h.{i}." for i in range(blocks - train_last, blocks))
        return {name for name in names if name.startswith((*last, "ln_f."))}
    if train_only is not None:
        learn = set()
        for glob in train_only.split(","):
            glob = glob.strip()
            matching = set(fnmatch.filter(names, PRESETS.get(glob, glob)))
            if not matching:
                raise InputError(
                    f"--train-only {glob!r} matches no tensor; names are like {names[2]}, ln_f.bias"
                )
            learn |= matching
        return learn
    return set(names)


def freeze(model: Classifier, learn: set[str]) -> None:
    """Let the head and the named tensors of the trunk learn, and nothing else."""
    for name, parameter in model.transformer.named_parameters():
        parameter.requires_grad_(name in learn)
    model.score.requires_grad_(True)


def train_mode(model: torch.nn.Module) -> None:
    """Put what learns in training mode and what is frozen in eval mode: it has no dropout then.

    Modules without tensors of their own (dropout) follow the module they are in, but for the
    dropout on embeddings, which stands in the trunk and follows the embeddings.
    """
    for module in model.modules():  # from the outside in, so that the inner ones have the last word
        parameters = list(module.parameters())
        if parameters:
            module.train(any(p.requires_grad for p in parameters))
        if isinstance(module, GPT2):
            module.drop.train(module.wte.weight.requires_grad or module.wpe.weight.requires_grad)


def count(model: Classifier) -> dict[str, int]:
    """Return how many numbers learn, and how many there are."""
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {"learning": learning, "total": sum(p.numel() for p in model.parameters())}


def table(model: Classifier, added: set[str] = frozenset()) -> str:
    """Return who learns, in lines for a person; blocks alike are on one line.

    What was put on the trunk, `added`, has a line of its own.
    """
    trunk = model.transformer
    groups = {"embeddings": [], **{f"h.{i}": [] for i in range(len(trunk.h))}, "ln_f": []}
    for name, parameter in trunk.named_parameters():
        first, _, rest = name.partition(".")
        part = f"h.{rest.partition('.')[0]}" if first == "h" else first
        part = "put on" if name in added else "embeddings" if first in ("wte", "wpe") else part
        groups.setdefault(part, []).append(parameter)
    groups["score"] = [model.score.weight]
    rows, counts = [], None  # a row: [first name, last name, parameters, how many of them learn]
    for name, parameters in groups.items():
        learning = sum(p.numel() for p in parameters if p.requires_grad)
        before, counts = counts, [sum(p.numel() for p in parameters), learning]
        if name.startswith("h.") and name != "h.0" and counts == before:
            rows[-1][1:] = [name, rows[-1][2] + counts[0], rows[-1][3] + counts[1]]
        else:
            rows.append([name, name, *counts])
    rows.append(["total", "total", *(sum(row[i] for row in rows) for i in (2, 3))])
    lines = [f"{'':12}{'parameters':>14}{'that learn':>14}"]
    for first, last, count, learning in rows:
        name = first if first == last else f"{first} - {last}"
        lines.append(f"{name:12}{count:14,}{f'{learning:,}' if learning else 'frozen':>14}")
    return "\n".join(lines)


def frozen_unchanged(model: Classifier, checkpoint: Checkpoint) -> bool:
    """Compare every frozen tensor of the trunk, bit for bit, with the checkpoint's file.

    The file is opened again: what the model holds proves nothing. Raises InputError if it has been
    replaced in the meantime.
    """
    if describe(checkpoint.name, checkpoint.folder).sha256 != checkpoint.sha256:
        raise InputError(f"{checkpoint.folder} was replaced during the run; train again")
    frozen = {n: p for n, p in model.transformer.named_parameters() if not p.requires_grad}
    stored = open_tensors(checkpoint, only=frozen)
    return all(
        torch.equal(p.detach().cpu().view(torch.int32), stored[name].view(torch.int32))
        for name, p in frozen.items()
    )
