"""Train a classifier on the last token of a GPT-2: `python train.py --freeze-trunk`.

Read from top to bottom: data goes text -> ids -> hidden states -> one pooled vector -> logits.
"""

import sys
from pathlib import Path

import torch

from minigpt.checkpoints import find_checkpoint, open_tokenizer, read_head, take_over
from minigpt.cli.flag_types import device_of
from minigpt.cli.program import errors_for_people
from minigpt.cli.train_flags import parse, settle
from minigpt.data import tokenize
from minigpt.datasets import load_dataset
from minigpt.edge.files import check_output_folder
from minigpt.fast import precompute, reuse_memory
from minigpt.fit import evaluate
from minigpt.freeze import freeze, names_to_train, table
from minigpt.parallel import joined
from minigpt.runs import (
    Clock,
    Journal,
    build,
    peak_memory,
    read_state,
    report,
    results,
    run_name,
    save_run,
    sha256_of,
    tune,
)


def main():
    """Read the flags, and do the job: alone, or with the other processes that torchrun started."""
    typed, clock = parse(__doc__, sys.argv[1:]), Clock()
    reuse_memory()
    with joined(device_of(typed.device)) as group:
        job(typed, clock, group)


def job(typed, clock, group):
    """Load, freeze, train, test, save; or, with --resume, go on where a run was stopped."""
    torch.manual_seed(typed.seed)
    say = (lambda *_: None) if typed.quiet or group.rank > 0 else print
    out = Path(typed.resume) if typed.resume else check_output_folder(typed.out)

    # 1. Load the trunk as pre-training left it, its tokenizer, and the texts
    checkpoint, dataset = find_checkpoint(typed.weights), load_dataset(typed.data, typed.seed)
    tokenizer = open_tokenizer(checkpoint)
    settings = settle(typed, checkpoint, len(dataset.train), group.size)
    model, added = build(checkpoint, settings, len(dataset.labels), settings["dropout"])
    model.to(settings["device"])
    if head := read_head(checkpoint):
        say(f"{checkpoint.name}: {take_over(head, model, typed, dataset.labels)}")

    # 2. Choose what is trained
    policy = (typed.freeze_trunk, typed.train_last, typed.train_only)
    names = added or names_to_train(model.transformer, *policy)
    freeze(model, names)
    if typed.compile:
        for block in model.transformer.h:
            block.compile(dynamic=True)

    # 3. Text -> ids
    train, dev, test = (
        tokenize(split, dataset.labels, tokenizer, settings["max_length"], typed.append_end)
        for split in (dataset.train, dataset.dev, dataset.test)
    )
    say(
        f"{checkpoint.name} on {dataset.name}: {len(train)} texts, {len(dev)} dev, {len(test)} test"
    )
    if truncated := train.truncated + dev.truncated + test.truncated:
        limit = settings["max_length"]
        say(f"{truncated} of them are longer than {limit} tokens and were cut at the end")
    say(f"\n{table(model, added)}\n")
    clock.lap("load")

    # 4. Compute what is not trained once, and train the rest from there
    header = {
        "typed": typed.argv,
        "weights": checkpoint.sha256,
        "texts": sha256_of(dataset.labels, train, dev, test),
        "processes": group.size,
    }
    state = read_state(out, header, clock) if typed.resume else None
    folder, quiet = out or run_name(settings, dataset.name), typed.quiet
    torch.manual_seed(typed.seed + group.rank)  # each process has its own dropout
    with Journal(
        folder, out is None, header, typed.save_every, group, clock, quiet, state
    ) as journal:
        t = tune(model, names, train, dev, settings, checkpoint, journal)

        # 5. Test once, and prove that what was frozen is still what was loaded
        inputs = precompute(model, test, checkpoint, group, quiet)
        logits = evaluate(model.score if typed.freeze_trunk else model, inputs, group)
        clock.lap("test")
        splits = (train, dev, test)
        metrics = results(settings, checkpoint, dataset, splits, t, model, added, logits)
        metrics |= {"seconds": clock.seconds(), "peak_memory_bytes": peak_memory()}
        journal.finish(lambda folder: save_run(folder, model, metrics))
    if group.rank == 0:
        print(report(metrics, journal.folder))


if __name__ == "__main__":
    with errors_for_people():
        main()
