"""The head that a checkpoint of a GPT2ForSequenceClassification brings along."""

import dataclasses
from pathlib import Path

import safetensors
import torch

from minigpt.checkpoints.find import Checkpoint
from minigpt.classifier import Classifier
from minigpt.edge.errors import InputError, first_few
from minigpt.edge.fields import check, flag, optional, read_json, table, text, whole

# K classes, C channels

FIELDS = {  # of config.json
    "id2label": optional(table),
    "id2label.*": text,
    "problem_type": optional(text),
    "minigpt": optional(table),  # what `export` writes for `predict`
    "minigpt.append_end": optional(flag),
    "minigpt.max_length": optional(whole(1)),
}


@dataclasses.dataclass(frozen=True)
class Head:
    """The head of a GPT2ForSequenceClassification, and what one needs to know to use it."""

    score: torch.Tensor  # (K, C)
    labels: tuple[str, ...]
    problem: str | None  # "problem_type" of config.json
    append_end: bool
    max_length: int


def read_head(checkpoint: Checkpoint) -> Head | None:
    """Return the head that a checkpoint brings, if any. Raises InputError for a damaged one."""
    path = checkpoint.folder / "config.json"
    score = read_score(checkpoint.folder / "model.safetensors", checkpoint.config.n_embd)
    if score is None:
        return None
    fields = check(path, read_json(path), FIELDS)
    names = fields.get("id2label") or {str(i): f"LABEL_{i}" for i in range(len(score))}
    labels = tuple(names.get(str(i)) for i in range(len(score)))
    if len(names) != len(score) or None in labels or len({*labels}) < len(labels):
        raise InputError(
            f"{path}: id2label does not name {len(score)} different classes, one for each row of "
            "score.weight"
        )
    own, context = fields.get("minigpt") or {}, checkpoint.config.n_positions
    append_end = bool(own.get("append_end"))
    max_length = own.get("max_length") or min(longest_text(checkpoint.folder) or context, context)
    if not 1 + append_end <= max_length <= context:
        raise InputError(f"{path}: max_length is {max_length}, not from 1 to {context} tokens")
    return Head(score, labels, fields.get("problem_type"), append_end, max_length)


def read_score(path: Path, width: int) -> torch.Tensor | None:  # -> (K, C)
    """Return `score.weight` of a model.safetensors, if it has one. Raises InputError."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            if "score.weight" not in [*file.keys()]:
                return None
            shape = file.get_slice("score.weight").get_shape()
            if len(shape) != 2 or shape[1] != width:
                raise InputError(f"{path}: score.weight has shape {shape}, not (classes, {width})")
            score = file.get_tensor("score.weight").float()
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read ({error}); fetch it again") from None
    if not score.isfinite().all():
        raise InputError(f"{path}: score.weight has values that are not finite (NaN or inf)")
    return score


def longest_text(folder: Path) -> int | None:
    """Return the most tokens of a text that tokenizer_config.json says, if it does."""
    path = folder / "tokenizer_config.json"
    if not path.exists():
        return None
    field = {"model_max_length": optional(whole())}  # 10**30 where it was not said
    return check(path, read_json(path), field).get("model_max_length")


def take_over(head: Head, model: Classifier, args, labels: tuple[str, ...]) -> str:
    """Start from the head that a checkpoint brought, if it fits; return what is done, in words.

    `args` are the flags of train.py, and `labels` those of the data, in the order of their classes.
    """
    if {*head.labels} != {*labels}:
        return f"its head is for {first_few(head.labels)}: a new one is put on"
    if (args.pool, args.append_end) != ("last", head.append_end):
        where = "an <|endoftext|> after each text" if head.append_end else "the last token"
        return f"its head reads at {where}: a new one is put on"
    if args.freeze_trunk or args.warm_head:
        return "its head is fitted anew, as that of a frozen trunk always is"
    rows = [head.labels.index(label) for label in labels]
    model.score.load_state_dict({"weight": head.score[rows]})
    return "its head is trained further"
