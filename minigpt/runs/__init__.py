"""A run: trained with its state saved as it goes, resumed, stored in a folder, and opened again.

with open_journal(...) as journal:                # saves, resumes, shows and stops
    t = tune(model, names, train, dev, settings, checkpoint, journal)
save_run(folder, model, metrics)
run = load_run(folder)                            # a Run: model, tokenizer, labels, recipe
run.part.logits_of(run.tokenize(texts))           # a row for each text, a column for each class
"""

from minigpt.runs.folder import Run, build, load_run, save_run
from minigpt.runs.journal import open_journal, sha256_of_data
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
    "Run",
    "build",
    "in_columns",
    "introduction",
    "load_run",
    "open_journal",
    "peak_memory",
    "report",
    "results",
    "rows_of_test",
    "run_name",
    "save_run",
    "sha256_of_data",
    "table",
    "tune",
]
