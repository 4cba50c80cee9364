"""Train a classifier on the last token of a GPT-2: `python train.py --freeze-trunk`.

Read from top to bottom: this is the only place where everything is wired. Data goes one way:
text -> ids -> hidden states -> one pooled vector -> logits -> loss.
"""

from pathlib import Path

import torch

from minigpt.checkpoints import find_checkpoint, open_tokenizer, read_head, take_over
from minigpt.classifier import Classifier
from minigpt.cli.choices import parse, policy_name, run_name, settle
from minigpt.cli.flags import device_of, dtype_of
from minigpt.cli.program import errors_for_people
from minigpt.data import sha256_of, tokenize
from minigpt.datasets.load import load_dataset
from minigpt.edge.errors import InputError
from minigpt.fast.frozen import keep
from minigpt.fast.memory import peak_memory, reuse_memory
from minigpt.fit import evaluate
from minigpt.freeze import count, freeze, frozen_unchanged, names_to_learn, table
from minigpt.metrics import summarize
from minigpt.parallel.group import Group, joined
from minigpt.peft.methods import put_on
from minigpt.runs.folder import check_out, save_run
from minigpt.runs.journal import Journal, state_of
from minigpt.runs.report import Clock, report
from minigpt.runs.tune import tune
from minigpt.weights import load_trunk


def main():
    """Read the flags, and do the job, alone or with the other processes that torchrun started."""
    args = parse(__doc__)
    clock = Clock()
    reuse_memory()
    args.device = device_of(args.device)
    with joined(args.device) as group:
        if group.rank > 0:
            args.quiet = True
        job(args, clock, group)


def job(args, clock: Clock, group: Group):
    """Load, freeze, train, test, save, in this order; or, with --resume, go on where it stopped."""
    torch.manual_seed(args.seed)
    resume = vars(args).pop("resume")
    out = Path(resume) if resume else check_out(args.out) if group.rank == 0 else None
    say = (lambda *_: None) if args.quiet else print

    # The trunk, as pre-training left it; the texts; who learns; a head for the labels
    checkpoint = find_checkpoint(args.weights)
    trunk = load_trunk(checkpoint.folder, args.dropout)
    added = put_on(trunk, vars(args))  # LoRA, adapters, a prompt, a prefix: or nothing
    dtype = dtype_of(args.dtype, args.device)
    args.dtype = str(dtype).removeprefix("torch.")
    tokenizer = open_tokenizer(checkpoint)
    dataset = load_dataset(args.data, args.seed)
    learn = added or names_to_learn(trunk, args.freeze_trunk, args.train_last, args.train_only)
    vectors = not added and all(trunk.get_parameter(name).dim() < 2 for name in learn)
    settle(args, checkpoint, vectors, len(dataset.train))
    if group.size > len(dataset.train):
        raise InputError(f"{group.size} processes for {len(dataset.train)} texts; start fewer")
    model = Classifier(trunk, len(dataset.labels), args.pool, dtype).to(args.device)
    if args.compile:
        for block in trunk.h:
            block.compile(dynamic=True)

    if head := read_head(checkpoint):
        say(f"{checkpoint.name}: {take_over(head, model, args, dataset.labels)}")
    freeze(model, learn)

    # Text -> ids
    train, dev, test = (
        tokenize(examples, dataset.labels, tokenizer, args.max_length, args.append_end)
        for examples in (dataset.train, dataset.dev, dataset.test)
    )
    truncated = train.truncated + dev.truncated + test.truncated
    say(
        f"{checkpoint.name} on {dataset.name}: {len(train)} texts, {len(dev)} dev, {len(test)} test"
    )
    if truncated:
        say(f"{truncated} of them are longer than {args.max_length} tokens and were cut at the end")
    say(f"\n{table(model, added)}\n")
    clock.lap("load")

    # A journal is kept of what follows, so that a run that was stopped goes on where it was
    about = {
        "flags": dict(vars(args)),
        "weights": checkpoint.sha256,
        "texts": sha256_of(dataset.labels, train, dev, test),
        "processes": group.size,
    }
    found = state_of(Path(resume), about, clock) if resume else None
    folder = out or run_name(args, checkpoint.name, dataset.name)
    numbered = args.out is None
    torch.manual_seed(args.seed + group.rank)  # each process drops out other numbers
    with Journal(folder, numbered, about, args.save_every, group, clock, found) as journal:
        kept = tune(model, learn, train, dev, args, checkpoint, group, journal, clock)

        # The test set, once; and the proof that what was frozen is what was loaded
        logits = evaluate(model, keep(model, test, checkpoint, group, args.quiet), group)
        if not logits.isfinite().all():
            raise InputError("some test texts get scores that are no numbers: damaged weights?")
        figures = summarize(logits, dataset.test, dataset.labels)
        clock.lap("test")
        unchanged = frozen_unchanged(model, checkpoint)

        counts = count(model)
        metrics = {
            "weights": {
                "name": checkpoint.name,
                "sha256": checkpoint.sha256,
                "parameters": sum(p.numel() for n, p in trunk.named_parameters() if n not in added),
            },
            "data": {
                "name": dataset.name,
                "labels": dataset.labels,
                "train": len(train),
                "dev": len(dev),
                "test": len(test),
                "truncated": truncated,
            },
            "freezing": {"policy": policy_name(args), **counts, "frozen_unchanged": unchanged},
            "recipe": vars(args),
            "dev": {"accuracy": kept["dev_accuracy"]},
            "test": figures,
            "seconds": clock.seconds(),
            "peak_memory_bytes": peak_memory(),
        }
        if group.rank == 0:
            with journal.writing():
                save_run(journal.folder, model, metrics)
            journal.step = None  # nothing is left to go on with
            print(report(metrics, journal.folder))


if __name__ == "__main__":
    with errors_for_people():
        main()
