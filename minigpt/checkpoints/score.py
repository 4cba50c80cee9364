"""The head that a checkpoint of a GPT2ForSequenceClassification brings along."""

import dataclasses
import json

import safetensors
import torch

from minigpt.classifier import Classifier
from minigpt.edge.errors import InputError, first_few
from minigpt.weights import Checkpoint

# K classes, C channels
UNREADABLE = (safetensors.SafetensorError, OSError, ValueError, RecursionError, AttributeError)


@dataclasses.dataclass(frozen=True)
class Head:
    """The head of a GPT2ForSequenceClassification, and what reading with it needs to know."""

    score: torch.Tensor  # (K, C)
    labels: tuple[str, ...]
    problem: str | None  # "problem_type" of config.json
    append_end: bool
    max_length: int


def read_head(checkpoint: Checkpoint) -> Head | None:
    """Return the head that a checkpoint brings, if any. Raises InputError for a damaged one."""
    path, size = checkpoint.folder / "model.safetensors", checkpoint.config
    try:
        fields = json.loads((checkpoint.folder / "config.json").read_bytes())
        with safetensors.safe_open(path, framework="pt") as file:
            if "score.weight" not in [*file.keys()]:
                return None
            score = file.get_tensor("score.weight").float()
        about = checkpoint.folder / "tokenizer_config.json"
        longest = json.loads(about.read_bytes()).get("model_max_length") if about.exists() else None
    except UNREADABLE as error:
        raise InputError(f"{path} cannot be read ({error}); fetch it again") from None
    own = fields.get("minigpt") or {}
    try:
        names = fields.get("id2label") or {str(i): f"LABEL_{i}" for i in range(len(score))}
        labels = tuple(names[str(i)] for i in range(len(names)))
        append_end = own.get("append_end", False)
        max_length = own.get("max_length", min(longest or size.n_positions, size.n_positions))
        sound = (
            tuple(score.shape) == (len(labels), size.n_embd)
            and len({*labels}) == len(labels)
            and all(type(label) is str for label in labels)
            and type(append_end) is bool
            and type(max_length) is int
            and 1 + append_end <= max_length <= size.n_positions
            and bool(score.isfinite().all())
        )
    except (KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise InputError(f"{path}: score.weight and config.json do not fit together")
    return Head(score, labels, fields.get("problem_type"), append_end, max_length)


def take_over(head: Head, model: Classifier, args, labels: tuple[str, ...]) -> str:
    """Go on from the head that a checkpoint brought, if it reads the same way; say what is done.

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
    return "its head goes on learning"
