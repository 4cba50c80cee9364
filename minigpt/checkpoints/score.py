"""The head that a checkpoint of a GPT2ForSequenceClassification brings along."""

import dataclasses
from pathlib import Path

import safetensors
import torch

from minigpt.checkpoints.find import Checkpoint
from minigpt.checkpoints.settings import CONFIG
from minigpt.checkpoints.verify import WEIGHTS
from minigpt.checkpoints.vocabulary import read_vocabulary
from minigpt.classifier import Classifier
from minigpt.edge.errors import InputError, first_few
from minigpt.edge.fields import (
    Kind,
    check,
    flag,
    one_of,
    optional,
    read_json,
    table,
    text,
    whole,
)
from minigpt.tokenizer import END_OF_TEXT
from minigpt.weights import shards_of

# K classes, C channels

FIELDS = {  # of config.json
    "id2label": optional(table),
    "id2label.*": Kind("a text or a whole number", lambda value: type(value) in (str, int)),
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
    keep: str = "start"  # of a longer text: transformers cuts the other side


def read_head(checkpoint: Checkpoint) -> Head | None:
    """Return the head that a checkpoint brings, if any. Raises InputError for a damaged one."""
    path = checkpoint.folder / "config.json"
    score = read_score(checkpoint.folder / WEIGHTS, checkpoint.config.n_embd)
    if score is None:
        return None
    fields = check(path, read_json(path), FIELDS)
    names = fields.get("id2label") or {str(i): f"LABEL_{i}" for i in range(len(score))}
    labels = tuple(str(names.get(str(i), "")) for i in range(len(score)))
    if len(names) != len(score) or not all(labels) or len({*labels}) < len(labels):
        raise InputError(
            f"{path}: id2label does not name {len(score)} different classes, one for each row of "
            "score.weight"
        )
    own, context = fields.get("minigpt") or {}, checkpoint.config.n_positions
    append_end = own.get("append_end")
    if append_end is None:  # where <|endoftext|> is padding, it is not there that the head reads
        vocabulary = read_vocabulary(checkpoint.folder)
        end = vocabulary.ids.get(END_OF_TEXT)
        append_end = vocabulary.settings.append_end and fields.get("pad_token_id") != end
    longest, keep = limits_of(checkpoint.folder)
    max_length = own.get("max_length") or min(longest or context, context)
    if not 1 + append_end <= max_length <= context:
        raise InputError(f"{path}: max_length is {max_length}, not from 1 to {context} tokens")
    return Head(score, labels, fields.get("problem_type"), append_end, max_length, keep)


def read_score(path: Path, width: int) -> torch.Tensor | None:  # -> (K, C)
    """Return `score.weight` of a model.safetensors, if it has one. Raises InputError."""
    try:
        for shard in shards_of(path):
            with safetensors.safe_open(shard, framework="pt") as file:
                if "score.weight" in [*file.keys()]:
                    score = file.get_tensor("score.weight").float()
                    break
        else:
            return None
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read ({error}); fetch it again") from None
    if score.dim() != 2 or score.shape[1] != width:
        shape = list(score.shape)
        raise InputError(f"{path}: score.weight has shape {shape}, not (classes, {width})")
    if not score.isfinite().all():
        raise InputError(f"{path}: score.weight has values that are not finite (NaN or inf)")
    return score


def limits_of(folder: Path) -> tuple[int | None, str]:
    """Return the most tokens of a text, if tokenizer_config.json says so, and which end is kept."""
    path = folder / CONFIG
    if not path.exists():
        return None, "start"
    fields = {
        "model_max_length": optional(whole()),  # 10**30 where it was not said
        "truncation_side": optional(one_of("right", "left")),
    }
    said = check(path, read_json(path), fields)
    return said.get("model_max_length"), "end" if said.get("truncation_side") == "left" else "start"


def take_over(checkpoint: Checkpoint, model: Classifier, args, labels: tuple[str, ...]) -> str:
    """Start from the head that a checkpoint brought, if it fits; return what is done, in words.

    `args` are the flags of train.py, and `labels` those of the data, in the order of their classes.
    Nothing is said where there is none; a damaged one is not needed.
    """
    try:
        head = read_head(checkpoint)
    except InputError as error:
        return f"its head cannot be used ({error}): a new one is put on"
    if head is None:
        return ""
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
