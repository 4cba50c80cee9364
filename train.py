"""Train a classifier on the last token of a GPT-2: `python train.py --freeze-trunk`.

Read from top to bottom: data goes text -> ids -> hidden states -> one pooled vector -> logits. The
packages that it calls do what the core does, faster and with files: the comments name the core's
own. (tests/core/test_alone.py is the same job by the core alone.)
"""

import sys
from pathlib import Path

from minigpt.cli.program import errors_for_people, load_torch, voices
from minigpt.cli.train_flags import parse

if __name__ == "__main__":  # before torch is loaded: --help, or a wrong flag, is answered at once
    with errors_for_people():
        typed = parse(__doc__, sys.argv[1:])
        load_torch()

import torch

from minigpt import runs
from minigpt.checkpoints import find_checkpoint, open_tokenizer, take_over
from minigpt.cli.devices import device_of
from minigpt.cli.train_settings import settle
from minigpt.data import tokenize
from minigpt.datasets import Reading, load_dataset
from minigpt.edge.files import check_output_folder
from minigpt.fast import check_frozen_part, compile_blocks, own_process, precompute
from minigpt.fit import evaluate
from minigpt.freeze import freeze, frozen_unchanged, names_to_train
from minigpt.parallel import joined


def main(typed):
    """Do what the flags say: alone, or with the other processes that torchrun started."""
    clock = runs.Clock()
    own_process()
    with joined(device_of(typed.device)) as group:
        metrics, folder = job(typed, clock, group)
        if group.rank == 0:
            print(runs.report(metrics, folder))


def job(typed, clock, group):
    """Load, freeze, train, test, save; or, with --resume, continue where a run was stopped.

    Returns what is in metrics.json, and the run's folder.
    """
    torch.manual_seed(typed.seed)
    say, note = voices(typed.quiet, group.rank)
    out = Path(typed.resume or typed.out) if typed.resume or typed.out else None
    if group.rank == 0 and not typed.resume:
        out = check_output_folder(typed.out)

    # 1. Load the trunk as pre-training left it (weights.load_trunk), its tokenizer, and the texts.
    #    `typed` are the flags as typed, `settings` the same with every default filled in
    checkpoint = find_checkpoint(typed.weights)
    dataset = load_dataset(typed.data, typed.seed, Reading.of(typed), note)
    tokenizer = open_tokenizer(checkpoint, typed.append_end, typed.keep)
    settings = settle(typed, checkpoint, len(dataset.train), group.size)
    model, added = runs.build(checkpoint, settings, len(dataset.labels), settings["dropout"])
    model.to(settings["device"])
    if done := take_over(checkpoint, model, typed, dataset.labels):
        say(f"{checkpoint.name}: {done}")

    # 2. Choose what is trained: tensors of the trunk by name, or those added by LoRA and the like
    policy = typed.freeze_trunk, typed.train_last, typed.train_only
    names = added or names_to_train(model.transformer, *policy)
    freeze(model, names)
    check_frozen_part(model)  # --dtype int8 is for frozen blocks alone
    if typed.compile:
        compile_blocks(model.transformer)

    # 3. Text -> ids
    how = tokenizer, settings["max_length"], typed.append_end, typed.keep
    splits = [
        tokenize(split, dataset.labels, *how)
        for split in (dataset.train, dataset.dev, dataset.test)
    ]
    train, dev, test = splits
    say(runs.introduction(checkpoint, dataset, splits, settings["max_length"]))
    say(f"\n{runs.table(model, added)}\n")
    clock.lap("load")

    # 4. Run the frozen part once over all texts (as head.vectors_of), and train what comes after:
    #    head.fit_head on the vectors, or fit.fit on the model, from its first trained block on
    folder = out or runs.run_name(settings, dataset.name)
    data = runs.sha256_of_data(dataset.labels, *splits)
    torch.manual_seed(typed.seed + group.rank)  # each process has its own dropout
    with runs.open_journal(typed, settings, folder, checkpoint, data, group, clock) as journal:
        t = runs.tune(model, names, train, dev, settings, checkpoint, journal)

        # 5. Test once (metrics.summarize), and prove that what was frozen is what is in the file
        inputs = precompute(model, test, checkpoint, group, typed.quiet)
        logits = evaluate(model.score if typed.freeze_trunk else model, inputs, group)
        clock.lap("test")
        metrics = runs.results(settings, checkpoint, dataset, splits, t, model, added, logits)
        unchanged = frozen_unchanged(model, checkpoint.folder / "model.safetensors")
        metrics["freezing"]["frozen_unchanged"] = unchanged
        metrics |= {"seconds": clock.seconds(), "peak_memory_bytes": runs.peak_memory()}
        journal.finish(lambda folder: runs.save_run(folder, model, metrics))
    return metrics, journal.folder


if __name__ == "__main__":
    with errors_for_people():
        main(typed)
