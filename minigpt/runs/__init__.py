"""A run: trained with its state saved as it goes, resumed, stored in a folder, and opened again.

with Journal(folder, ...) as journal:             # saves, resumes, shows and stops
    t = tune(model, names, train, dev, settings, checkpoint, journal)
save_run(folder, model, metrics)
run = load_run(folder)                            # a Run: model, tokenizer, labels, recipe
"""

from minigpt.runs.folder import Run, build, load_run, save_run
from minigpt.runs.journal import Journal, read_state, sha256_of
from minigpt.runs.report import Clock, peak_memory, report, results, run_name
from minigpt.runs.tune import tune

__all__ = [
    "Clock",
    "Journal",
    "Run",
    "build",
    "load_run",
    "peak_memory",
    "read_state",
    "report",
    "results",
    "run_name",
    "save_run",
    "sha256_of",
    "tune",
]
