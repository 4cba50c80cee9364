"""A run: trained with its state saved as it goes, resumed, stored in a folder, and opened again.

with Journal(folder, ...) as journal:             # saves, resumes, shows and stops
    t = tune(model, names, train, dev, settings, checkpoint, journal)
save_run(folder, model, metrics)
run = load_run(folder)                            # a Run: model, tokenizer, labels, recipe
rate(run, FrozenPart(run.model), texts)           # the probabilities of its classes
"""

from minigpt.runs.folder import Run, build, load_run, save_run
from minigpt.runs.journal import Journal, open_journal, sha256_of
from minigpt.runs.read import rate, read, unlabelled, vectors_of
from minigpt.runs.report import (
    Clock,
    in_columns,
    introduction,
    peak_memory,
    report,
    results,
    rows_of_test,
    run_name,
    table,
)
from minigpt.runs.tune import tune

__all__ = [
    "Clock",
    "Journal",
    "Run",
    "build",
    "in_columns",
    "introduction",
    "load_run",
    "open_journal",
    "peak_memory",
    "rate",
    "read",
    "report",
    "results",
    "rows_of_test",
    "run_name",
    "save_run",
    "sha256_of",
    "table",
    "tune",
    "unlabelled",
    "vectors_of",
]
