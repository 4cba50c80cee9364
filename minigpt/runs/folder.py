"""A run's folder: what was trained, the weights it belongs to, and its results.

metrics.json          how good it is
run.json              the recipe, the labels, and by sha256 the base weights and what was trained
learned.safetensors   the tensors that were trained, under their official names, and no others
history.jsonl         a line for each evaluation
state.safetensors     where it is, while it trains (journal.py)
"""

import dataclasses
import functools
import hashlib
import json
from pathlib import Path
from shlex import quote

import safetensors
import safetensors.torch
import tiktoken
import torch

from minigpt.checkpoints import read_head
from minigpt.checkpoints.find import Checkpoint, describe, find_checkpoint, open_tokenizer
from minigpt.classifier import POOLINGS, Classifier
from minigpt.data import Example, Tokens, tokenize
from minigpt.edge import fields, files
from minigpt.edge.checkout import train_command
from minigpt.edge.errors import InputError, first_few
from minigpt.fast.frozen import FrozenPart
from minigpt.fast.partial import PartialClassifier
from minigpt.freeze import freeze, trainable
from minigpt.peft import METHODS, put_on, room_for_text
from minigpt.runs.journal import STATE, failure_of
from minigpt.weights import load_trunk


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained classifier, ready to read texts, and the weights it belongs to."""

    model: PartialClassifier
    tokenizer: tiktoken.Encoding
    labels: tuple[str, ...]
    recipe: dict  # every flag of train.py; of a folder of transformers, those that reading needs
    checkpoint: Checkpoint
    # The fewest and the most tokens of a text it was trained on; earlier runs do not say
    train_lengths: tuple[int, int] | None = None

    @property
    def append_end(self) -> bool:
        return self.recipe["append_end"]

    @property
    def max_length(self) -> int:
        return self.recipe["max_length"]

    @property
    def keep(self) -> str:
        """Which end of a long text is kept: runs of earlier versions do not say."""
        return self.recipe.get("keep") or "start"

    @functools.cached_property
    def part(self) -> FrozenPart:
        """What reads texts."""
        return FrozenPart(self.model)

    def tokenize(self, texts: list[str]) -> Tokens:
        """Return texts as the run reads them; the first label stands in for theirs."""
        examples = [Example(text, self.labels[0]) for text in texts]
        how = self.max_length, self.append_end, self.keep
        return tokenize(examples, self.labels, self.tokenizer, *how)


def build(
    checkpoint: Checkpoint, recipe: dict, classes: int, dropout: float | None = None
) -> tuple[PartialClassifier, set[str]]:
    """Build the classifier that a recipe describes, on the weights of a checkpoint.

    A recipe has the flags of train.py: here those of the tuning method, "pool" and "dtype". Also
    returns the names of the parameters that the tuning method added. Raises InputError for what
    does not fit the trunk.
    """
    trunk = load_trunk(checkpoint.folder, dropout)
    added = put_on(trunk, recipe)
    dtype = getattr(torch, recipe["dtype"])
    return PartialClassifier(trunk, classes, recipe["pool"], dtype), added


def save_run(folder: Path, model: Classifier, metrics: dict) -> None:
    """Write a run's results beside its history. With run.json, the last file, it is finished."""
    learned = {
        name.removeprefix("transformer."): p.detach().cpu() for name, p in trainable(model).items()
    }
    run = {
        "weights": metrics["weights"],
        "labels": metrics["data"]["labels"],
        "train_lengths": metrics["data"].get("train_lengths"),
        "recipe": metrics["recipe"],
        "learned": sorted(learned),
    }
    folder.mkdir(parents=True, exist_ok=True)
    files.write(folder / "learned.safetensors", learned)
    run["learned_sha256"] = digest_of(folder / "learned.safetensors")
    files.write(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    files.write(folder / "run.json", json.dumps(run, indent=2) + "\n")
    (folder / STATE).unlink(missing_ok=True)


def load_run(folder: str, device: str = "cpu") -> Run:
    """Open a run on its base weights, which must be the very same ones. Raises InputError.

    Also opens a folder of a GPT2ForSequenceClassification, with its `score` as the head.
    """
    if Path(folder, "config.json").is_file() and not Path(folder, "run.json").exists():
        return load_transformers(folder, device)
    saved = read_run_json(Path(folder))
    recipe, labels = saved["recipe"], tuple(saved["labels"])
    checkpoint = base_of(folder, saved["weights"])
    try:
        with torch.random.fork_rng():  # the random values it starts with are replaced below
            model, added = build(checkpoint, recipe, len(labels))
    except InputError as error:
        raise InputError(f"{folder}/run.json does not fit its weights: {error}") from None
    least, most = room_for_text(checkpoint.config, recipe)
    if not least <= recipe["max_length"] <= most:
        raise InputError(f"{folder}/run.json: max_length is not from {least} to {most}")
    learned = read_learned(Path(folder), model, {*saved["learned"]} | added)
    expected = saved.get("learned_sha256")  # earlier runs do not say
    if expected not in (None, digest_of(Path(folder, "learned.safetensors"))):
        raise InputError(f"{folder}/learned.safetensors is not what was written; {MEND}")
    # Nothing is trained any more; but what was is computed in float32, where it can be
    freeze(model, {*saved["learned"]} if model.dtype != torch.float32 else set())
    model.load_state_dict(learned, strict=False)
    tokenizer = open_tokenizer(checkpoint)
    lengths = saved.get("train_lengths")
    return Run(model.eval().to(device), tokenizer, labels, recipe, checkpoint, lengths)


def digest_of(path: Path) -> str:
    """Return the sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def base_of(folder: str, weights: dict) -> Checkpoint:
    """Return the checkpoint that a run was trained on. Raises InputError if it is another one."""
    name, sha256 = weights["name"], weights["sha256"]
    try:
        checkpoint = find_checkpoint(name)
    except InputError as error:
        raise InputError(f"{folder} needs the weights it was trained on: {error}") from None
    if checkpoint.sha256 != sha256:
        raise InputError(
            f"{folder} was trained on weights with sha256 {sha256}, but {name} now has "
            f"{checkpoint.sha256}; bring back the weights it was trained on"
        )
    return checkpoint


def read_learned(folder: Path, model: Classifier, names: set[str]) -> dict[str, torch.Tensor]:
    """Return the tensors of learned.safetensors, by the model's names. Raises InputError.

    `names` are those that must be there, and all of them.
    """
    path = files.part_of(folder, "learned.safetensors")
    parameters = {name.removeprefix("transformer."): name for name, _ in model.named_parameters()}
    try:
        tensors = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read ({error})") from None
    wrong = tensors.keys() ^ names
    for name, tensor in tensors.items():
        fits = name in parameters and tensor.shape == model.get_parameter(parameters[name]).shape
        if not fits or tensor.dtype != torch.float32 or not tensor.isfinite().all():
            wrong.add(name)
    if wrong:
        raise InputError(f"{path} does not fit: {first_few(sorted(wrong))}")
    return {parameters[name]: tensor for name, tensor in tensors.items()}


def load_transformers(folder: str, device: str) -> Run:
    """Open a GPT2ForSequenceClassification that transformers, or our export, has written."""
    checkpoint = describe(str(Path(folder).resolve()), Path(folder))
    head = read_head(checkpoint)
    tokenizer = open_tokenizer(checkpoint, keep=head.keep if head else "start")
    if head is None:
        how = f"{train_command()} --weights={quote(str(folder))}"
        raise InputError(f"{folder} has no `score`; train one: {how}")
    if len(head.labels) < 2 or head.problem not in (None, "single_label_classification"):
        raise InputError(f"{folder} does not choose among classes: {head.problem or 'one score'}")
    recipe = {name: getattr(head, name) for name in ("append_end", "max_length", "keep")}
    with torch.random.fork_rng():  # the random values it starts with are replaced below
        how = recipe | {"pool": "last", "dtype": "float32"}
        model, _ = build(checkpoint, how, len(head.labels))
    model.score.load_state_dict({"weight": head.score})
    freeze(model, set())
    return Run(model.eval().to(device), tokenizer, head.labels, recipe, checkpoint)


MEND = "train again, or bring it back from a copy"
LENGTHS = fields.Kind(
    "two whole numbers, the lesser first",
    lambda value: (
        type(value) is list
        and len(value) == 2
        and all(type(n) is int for n in value)
        and 1 <= value[0] <= value[1]
    ),
)
FIELDS = {
    "weights.name": fields.text,
    "weights.sha256": fields.text,
    "labels": fields.texts(2),
    "learned": fields.texts(1),
    "learned_sha256": fields.optional(fields.text),
    "train_lengths": fields.optional(LENGTHS),
    "recipe.pool": fields.one_of(*POOLINGS),
    "recipe.dtype": fields.one_of("float32", "bfloat16", "int8"),
    "recipe.append_end": fields.flag,
    "recipe.keep": fields.optional(fields.one_of("start", "end")),
    "recipe.max_length": fields.whole(1),
    **{f"recipe.{name}": fields.optional(fields.whole()) for name in (*METHODS, "in_last")},
}
FIELDS_OF_LORA = {
    "recipe.lora_on": fields.text,
    "recipe.lora_alpha": fields.positive,
    "recipe.lora_dropout": fields.number(0, 1),
}


def read_run_json(folder: Path) -> dict:
    """Return run.json, having checked every field that opening a run needs. Raises InputError."""
    path = files.part_of(folder, "run.json")
    if (folder / "adapter_config.json").is_file():
        raise InputError(
            f"{folder} is of the peft library, which is not read here; merge it there "
            "(merge_and_unload) and save it whole, or predict with the run it came from"
        )
    if (folder / STATE).is_file() and not path.is_file():
        if failed := failure_of(folder):
            raise InputError(f"{folder} has no trained classifier: {failed}")
        resume = f"{train_command()} --resume={quote(str(folder))}"
        raise InputError(f"{folder} is not finished: {resume}")
    if not path.is_file():
        raise InputError(f"{folder}: no such run; train.py prints the folder of each run it makes")
    about = fields.check(path, fields.read_json(path), FIELDS, MEND)
    if about["recipe"].get("lora") is not None:
        fields.check(path, about, FIELDS_OF_LORA, MEND)
    if "score.weight" not in about["learned"]:
        raise InputError(f"{path}: learned does not name score.weight; {MEND}")
    return about
