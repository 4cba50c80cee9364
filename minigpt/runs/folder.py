"""A run's folder: what it learned, what it stands on, and its figures.

metrics.json          how good it is
run.json              the recipe, the labels, and the base weights by name and sha256
learned.safetensors   the tensors that learned, under their official names, and no others
history.jsonl         a line for each evaluation
state.safetensors     where it stands, while it trains (journal.py)
"""

import contextlib
import dataclasses
import json
import tempfile
from pathlib import Path
from shlex import quote

import safetensors
import safetensors.torch
import tiktoken
import torch

from minigpt.checkpoints.score import read_head
from minigpt.classifier import POOLINGS, Classifier
from minigpt.edge import fields, files
from minigpt.edge.errors import InputError, first_few
from minigpt.freeze import freeze
from minigpt.peft.methods import METHODS, put_on, room_for_text
from minigpt.runs.journal import STATE
from minigpt.runs.snapshot import learning_of
from minigpt.tokenizer import load_tokenizer
from minigpt.weights import Checkpoint, describe, find_checkpoint, load_trunk


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained classifier, ready to read texts, and what it stands on."""

    model: Classifier
    tokenizer: tiktoken.Encoding
    labels: tuple[str, ...]
    recipe: dict  # every flag of train.py; of a folder of transformers, those that reading needs
    checkpoint: Checkpoint

    @property
    def append_end(self) -> bool:
        return self.recipe["append_end"]

    @property
    def max_length(self) -> int:
        return self.recipe["max_length"]


def check_out(out: str | None, flag: str = "--out") -> Path | None:
    """Return where --out is, links followed, or None; raise InputError unless it can be written.

    Does so before any work is done: also that runs/ can be written, where there is no --out.
    """
    folder = None if out is None else Path(out).resolve()
    if folder and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{flag} {out} exists and is not empty; choose another name or delete it")
    parent = folder.parent if folder else Path("runs")
    parent = folder if folder and folder.exists() else parent
    made = [path for path in (parent, *parent.parents) if not path.exists()]
    try:
        parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryDirectory(dir=parent).cleanup()
    except OSError as error:
        raise InputError(f"{parent} cannot be written ({error.strerror}); say {flag}") from None
    for path in made:  # nothing is left behind if the run comes to nothing
        with contextlib.suppress(OSError):  # another run has come to need it
            path.rmdir()
    return folder


def save_run(folder: Path, model: Classifier, metrics: dict) -> None:
    """Write what a run has come to beside its history. With run.json, the last, it is finished."""
    learned = {
        name.removeprefix("transformer."): p.detach().cpu()
        for name, p in learning_of(model).items()
    }
    about = {
        "weights": metrics["weights"],
        "labels": metrics["data"]["labels"],
        "recipe": metrics["recipe"],
        "learned": sorted(learned),
    }
    folder.mkdir(parents=True, exist_ok=True)
    files.write(folder / "learned.safetensors", learned)
    files.write(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    files.write(folder / "run.json", json.dumps(about, indent=2) + "\n")
    (folder / STATE).unlink(missing_ok=True)


def load_run(folder: str, device: str = "cpu") -> Run:
    """Open a run on its base weights, which must be the very same ones. Raises InputError.

    Also opens a folder of a GPT2ForSequenceClassification, with its `score` as the head.
    """
    if Path(folder, "config.json").is_file() and not Path(folder, "run.json").exists():
        return load_foreign(folder, device)
    about = read_run_json(Path(folder))
    base, recipe, labels = about["weights"], about["recipe"], tuple(about["labels"])
    try:
        checkpoint = find_checkpoint(base["name"])
    except InputError as error:
        raise InputError(f"{folder} stands on weights that cannot be had: {error}") from None
    if checkpoint.sha256 != base["sha256"]:
        raise InputError(
            f"{folder} was trained on weights with sha256 {base['sha256']}, but {base['name']} now "
            f"has {checkpoint.sha256}; bring back the weights it was trained on"
        )
    dtype = getattr(torch, recipe["dtype"])
    trunk = load_trunk(checkpoint)
    try:
        with torch.random.fork_rng():  # the random values it starts with are replaced below
            added = put_on(trunk, recipe)
    except InputError as error:
        raise InputError(f"{folder}/run.json does not fit its weights: {error}") from None
    model = Classifier(trunk, len(labels), recipe["pool"], dtype)
    parameters = {name.removeprefix("transformer."): p for name, p in model.named_parameters()}
    path = files.part_of(Path(folder), "learned.safetensors")
    try:
        learned = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read ({error})") from None
    wrong = learned.keys() ^ set(about["learned"])  # one has it, the other has not
    wrong |= added - learned.keys()
    for name, tensor in learned.items():
        fits = name in parameters and tensor.shape == parameters[name].shape
        if not fits or tensor.dtype != torch.float32 or not tensor.isfinite().all():
            wrong.add(name)
    if wrong:
        raise InputError(f"{path} does not fit: {first_few(sorted(wrong))}")
    least, most = room_for_text(checkpoint.config, recipe)
    if not least <= recipe["max_length"] <= most:
        raise InputError(f"{folder}/run.json: max_length is not from {least} to {most}")
    # Nothing learns any more; but in bfloat16, what did is computed more finely than the rest
    freeze(model, learned.keys() if dtype != torch.float32 else set())
    with torch.no_grad():
        for name, tensor in learned.items():
            parameters[name].copy_(tensor)
    tokenizer = load_tokenizer(checkpoint.folder, checkpoint.config.vocab_size)
    return Run(model.eval().to(device), tokenizer, labels, recipe, checkpoint)


def load_foreign(folder: str, device: str) -> Run:
    """Open a GPT2ForSequenceClassification that transformers, or our export, has written."""
    checkpoint = describe(str(Path(folder).resolve()), Path(folder))
    head = read_head(checkpoint)
    if head is None:
        raise InputError(f"{folder} has no `score`; train one: train.py --weights {folder}")
    if len(head.labels) < 2 or head.problem not in (None, "single_label_classification"):
        raise InputError(f"{folder} is no choice among classes, but {head.problem or 'one score'}")
    model = Classifier(load_trunk(checkpoint), len(head.labels))
    model.score.load_state_dict({"weight": head.score})
    freeze(model, set())
    tokenizer = load_tokenizer(checkpoint.folder, checkpoint.config.vocab_size)
    recipe = {"append_end": head.append_end, "max_length": head.max_length}
    return Run(model.eval().to(device), tokenizer, head.labels, recipe, checkpoint)


MEND = "train again, or bring it back from a copy"
FIELDS = {
    "weights.name": fields.text,
    "weights.sha256": fields.text,
    "labels": fields.texts(2),
    "learned": fields.texts(1),
    "recipe.pool": fields.one_of(*POOLINGS),
    "recipe.dtype": fields.one_of("float32", "bfloat16"),
    "recipe.append_end": fields.flag,
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
        raise InputError(f"{folder} is not finished: python train.py --resume={quote(str(folder))}")
    if not path.is_file():
        raise InputError(f"{folder}: no such run; train.py prints the folder of each run it makes")
    about = fields.check(path, fields.read_json(path), FIELDS, MEND)
    if about["recipe"].get("lora") is not None:
        fields.check(path, about, FIELDS_OF_LORA, MEND)
    if "score.weight" not in about["learned"]:
        raise InputError(f"{path}: learned does not name score.weight; {MEND}")
    return about
