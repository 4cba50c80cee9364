"""Train a classifier on the last token of a GPT-2: `python train.py --freeze-trunk`.

Read from top to bottom: this is the only place where everything is wired. Data goes one way:
text -> ids -> hidden states -> one pooled vector -> logits -> loss.
"""

import dataclasses
import os
import shutil

import torch

from minigpt.batches import tokenize
from minigpt.classifier import POOLINGS, Classifier
from minigpt.data import load_dataset
from minigpt.distributed import Group, joined
from minigpt.errors import InputError, Parser, errors_for_people, first_few
from minigpt.fit import evaluate, fit, recipe_of
from minigpt.flags import DEVICES, DTYPES, above_zero, at_least, device_of, dtype_of
from minigpt.freeze import count, freeze, frozen_unchanged, names_to_learn, policy_name, table
from minigpt.frozen import keep
from minigpt.memory import peak_memory, reuse_memory
from minigpt.metrics import summarize
from minigpt.peft import length_of, method_of, put_on
from minigpt.probe import HEAD, fit_head
from minigpt.report import Clock, report
from minigpt.runs import check_out, save_run
from minigpt.tokenizer import load_tokenizer
from minigpt.weights import find_checkpoint, load_trunk, read_head

EPOCHS = "default: 20 for a frozen trunk; else 3, or 6 for fewer than 5,000 texts"
ONLY = "tensors by name, or bitfit (all biases) or norms (layer norms); and the head"


def parse():
    """Read the flags; raise InputError for those that contradict each other."""
    parser = Parser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--weights", help="gpt2, gpt2-medium, gpt2-large, gpt2-xl, tiny, a folder, or ORG/REPO")
    add("--data", default="mirrored", help="mirrored, sst2, a .tsv/.csv/.jsonl file, or a folder")

    policy = parser.add_argument_group("what learns (default: everything)")
    policy = policy.add_mutually_exclusive_group()
    policy.add_argument("--freeze-trunk", action="store_true", help="only the head")
    policy.add_argument("--train-last", type=int, metavar="N", help="the last N blocks, ln_f, head")
    policy.add_argument("--train-only", metavar="GLOB[,GLOB]", help=ONLY)
    policy.add_argument("--lora", type=int, metavar="R", help="LoRA of rank R, and the head")
    policy.add_argument("--adapter", type=int, metavar="R", help="bottlenecks of R channels, head")
    policy.add_argument("--prompt", type=int, metavar="N", help="N vectors before each text, head")
    policy.add_argument("--prefix", type=int, metavar="N", help="N keys and values a block, head")
    add("--in-last", type=int, metavar="N", help="LoRA or adapters in the last N blocks only")
    add(
        "--lora-on",
        metavar="GLOB[,GLOB]",
        help="layers by (the end of) their names; default: c_attn",
    )
    add("--lora-alpha", type=above_zero, metavar="A", help="scale times rank; default: 2 R")
    add("--lora-dropout", type=at_least(0.0, 1.0), metavar="P", help="before A; default: 0")
    add("--warm-head", type=at_least(1), metavar="E", help="E epochs of the head alone first")

    add("--pool", default="last", choices=POOLINGS)
    add("--append-end", action="store_true", help="put <|endoftext|> after each text")
    add(
        "--epochs",
        type=at_least(1),
        help="default: 20 for a frozen trunk, else 3; 6 for under 5,000 texts",
    )
    add("--batch-size", type=at_least(1), default=32)
    add("--lr", type=above_zero, help="default: by what learns, and the trunk's width")
    add("--weight-decay", type=at_least(0.0), help="default: 1 for a frozen trunk, else 0.1")
    add("--warmup", type=at_least(0.0, 1.0), default=0.1, help="share of the steps")
    add("--clip", type=above_zero, default=1.0, help="longest gradient")
    add("--accumulate", type=at_least(1), default=1, help="batches to a step")
    add("--dropout", type=at_least(0.0, 1.0), help="of what learns; default: as config.json, 0.1")
    add("--max-length", type=at_least(1), help="tokens kept of a text; default: the context")
    add("--seed", type=at_least(0, 2**63), default=0)
    add("--device", default="auto", choices=DEVICES)
    add("--dtype", default="auto", choices=DTYPES, help="of the trunk; auto: bfloat16 on GPUs")
    add("--compile", action="store_true", help="compile the blocks: for long runs")
    add("--out", help="folder for the run (default: runs/NAME, made from the choices)")
    add("--quiet", action="store_true", help="print the last table only")
    args = parser.parse_args()
    if args.compile and not shutil.which(os.environ.get("CXX", "c++")):
        raise InputError("--compile needs a C++ compiler, and there is none here; leave it out")
    if args.freeze_trunk and args.warm_head:
        raise InputError("--freeze-trunk --warm-head: with a frozen trunk nothing comes after")
    own = (args.lora_on, args.lora_alpha, args.lora_dropout)
    if args.lora is None and any(flag is not None for flag in own):
        raise InputError("--lora-on, --lora-alpha and --lora-dropout go with --lora R")
    if args.lora is not None:
        args.lora_on = "c_attn" if args.lora_on is None else args.lora_on
        args.lora_alpha = args.lora_alpha or 2.0 * args.lora
        args.lora_dropout = args.lora_dropout or 0.0
    if args.in_last is not None and args.lora is None and args.adapter is None:
        raise InputError("--in-last goes with --lora or --adapter")
    return args


# Learning rates times the trunk's width, of what is new or small: chosen on dev, with tiny
RATES = {"lora": 0.5, "adapter": 0.8, "prompt": 2.5, "prefix": 8.0, "norms": 1.3, "bitfit": 1.3}


def settle(args, checkpoint, texts: int) -> None:
    """Give the flags that were left out what suits what learns, and the sizes of trunk and data."""
    config = checkpoint.config
    args.weights = checkpoint.name
    if args.freeze_trunk:
        usual = HEAD.epochs, HEAD.lr, HEAD.weight_decay
    else:
        rate = RATES.get(method_of(vars(args)) or args.train_only)  # else: 5e-5 for gpt2
        lr = rate / config.n_embd if rate else min(1e-3, 32 / config.n_embd**2)
        usual = 3 if texts >= 5000 else 6, lr, 0.1
    for name, value in zip(("epochs", "lr", "weight_decay"), usual, strict=True):
        if getattr(args, name) is None:
            setattr(args, name, value)
    args.max_length = args.max_length or config.n_positions - length_of(vars(args))
    least, most = 1 + args.append_end, config.n_positions - length_of(vars(args))
    if most < least:
        raise InputError(f"no room is left for a text in a context of {config.n_positions} tokens")
    if not least <= args.max_length <= most:
        raise InputError(f"--max-length {args.max_length}: it can be {least} to {most} tokens here")


def take_over(head, model: Classifier, args, labels) -> str:
    """Go on from the head that a checkpoint brought, if it reads the same way; say what is done."""
    if {*head.labels} != {*labels}:
        return f"its head is for {first_few(head.labels)}: a new one is put on"
    if (args.pool, args.append_end) != ("last", head.append_end):
        where = "an <|endoftext|> after each text" if head.append_end else "the last token"
        return f"its head reads at {where}: a new one is put on"
    if args.freeze_trunk or args.warm_head:
        return "its head is fitted anew, as that of a frozen trunk always is"
    rows = [head.labels.index(label) for label in labels]
    model.score.load_state_dict({"weight": head.score[rows]})
    return "its head goes on learning"


def main():
    """Read the flags, and do the job, alone or with the other processes that torchrun started."""
    args = parse()
    clock = Clock()
    reuse_memory()
    args.device = device_of(args.device)
    with joined(args.device) as group:
        if group.rank > 0:
            args.quiet = True
        job(args, clock, group)


def job(args, clock: Clock, group: Group):
    """Load, freeze, train, test, save, in this order."""
    torch.manual_seed(args.seed)
    out = check_out(args.out) if group.rank == 0 else None
    say = (lambda *_: None) if args.quiet else print

    # The trunk, as pre-training left it; the texts; a head for their labels
    checkpoint = find_checkpoint(args.weights)
    trunk = load_trunk(checkpoint, args.dropout)
    added = put_on(trunk, vars(args))  # LoRA, adapters, a prompt, a prefix: or nothing
    dtype = dtype_of(args.dtype, args.device)
    args.dtype = str(dtype).removeprefix("torch.")
    tokenizer = load_tokenizer(checkpoint.folder, checkpoint.config.vocab_size)
    dataset = load_dataset(args.data, args.seed)
    settle(args, checkpoint, len(dataset.train))
    if group.size > len(dataset.train):
        raise InputError(f"{group.size} processes for {len(dataset.train)} texts; start fewer")
    model = Classifier(trunk, len(dataset.labels), args.pool, dtype).to(args.device)
    if args.compile:
        for block in trunk.h:
            block.compile(dynamic=True)

    if head := read_head(checkpoint):
        say(take_over(head, model, args, dataset.labels))

    # Who learns, and who does not
    learn = added or names_to_learn(trunk, args.freeze_trunk, args.train_last, args.train_only)
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
    say(f"\n{table(model)}\n")
    clock.lap("load")

    # What does not learn is computed once; then comes the loop
    history = []
    torch.manual_seed(args.seed + group.rank)  # each process drops out other numbers
    if args.freeze_trunk or args.warm_head:
        freeze(model, set())
        vectors = [keep(model, texts, checkpoint, group, args.quiet) for texts in (train, dev)]
        clock.lap("frozen")
        recipe = recipe_of(vars(args))
        if args.warm_head:  # --epochs, --lr and --weight-decay are for what comes after
            own = {"lr": HEAD.lr, "weight_decay": HEAD.weight_decay}
            recipe = dataclasses.replace(recipe, epochs=args.warm_head, **own)
        kept, lines = fit_head(model, *vectors, recipe, group, args.quiet)
        history += [{"phase": "head"} | line for line in lines]
        freeze(model, learn)
        clock.lap("fit")
    if not args.freeze_trunk:
        states = [keep(model, texts, checkpoint, group, args.quiet) for texts in (train, dev)]
        clock.lap("frozen")
        kept, lines = fit(model, *states, recipe_of(vars(args)), group, args.quiet)
        history += [{"phase": "trunk"} | line for line in lines]
        clock.lap("fit")

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
        folder = save_run(out, model, metrics, history)
        print(report(metrics, folder))


if __name__ == "__main__":
    with errors_for_people():
        main()
