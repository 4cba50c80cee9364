"""Which runs can be exported, and as what; the files themselves are the other modules' business."""

from pathlib import Path

from minigpt.edge.errors import InputError
from minigpt.edge.files import check_output_folder, write_folder
from minigpt.export import for_peft, for_transformers
from minigpt.export.card import card, metrics_of
from minigpt.peft import method_of
from minigpt.runs import Run, load_run
from minigpt.tokenizer import END_OF_TEXT

KINDS = ("transformers", "peft")


def export(folder: str, to: str, kind: str) -> str:
    """Write the run in `folder` to the folder `to`, for "transformers" or for "peft".

    Returns the lines of Python that open it there. Raises InputError for what has no counterpart,
    and for a place that cannot be written or is not empty.
    """
    place = check_output_folder(to, "--to")
    run = load_run(folder)
    check_counterpart(folder, run, kind)
    library = {"transformers": for_transformers, "peft": for_peft}[kind]
    there = library.how_to_open(run, place.name)  # for whoever it is handed on to
    there = there.replace(repr(str(run.checkpoint.folder)), repr(Path(run.checkpoint.name).name))
    text = card(run, metrics_of(folder, len(run.labels)), place.name, kind, there)
    write_folder(place, {**library.files_of(run), "README.md": text})
    return library.how_to_open(run, to)


def check_counterpart(folder: str, run: Run, kind: str) -> None:
    """Raise InputError for a run that the library has no counterpart for, saying what to do."""
    pooling, method = run.model.pooling, method_of(run.recipe)
    if pooling != "last":
        raise InputError(f"{folder} pools {pooling!r}; GPT2ForSequenceClassification only the last")
    if method == "adapter":
        raise InputError(f"{folder} has adapters, which neither transformers nor peft can hold")
    if kind == "transformers":
        if method in ("prompt", "prefix"):
            raise InputError(
                f"{folder} has a {method}, which needs the peft library; say --as peft"
            )
    elif method is None:
        raise InputError(f"{folder} has no LoRA, prompt or prefix for peft; leave out --as peft")
    elif run.append_end:
        raise InputError(
            f"{folder} reads at {END_OF_TEXT}, which a batch in peft would take for padding; "
            "a LoRA run can be exported without --as peft"
        )
