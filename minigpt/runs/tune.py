"""Training, from flags to weights: the head on a frozen trunk, then whatever else learns.

What does not learn is computed once, and each phase starts from there.
"""

import dataclasses

from minigpt.classifier import Classifier
from minigpt.data import Tokens
from minigpt.fast.frozen import keep
from minigpt.fit import fit, recipe_of
from minigpt.freeze import freeze
from minigpt.head import HEAD, fit_head
from minigpt.parallel.group import ALONE, Group
from minigpt.runs.journal import Journal
from minigpt.runs.report import Clock
from minigpt.weights import Checkpoint


def tune(
    model: Classifier,
    learn: set[str],
    train: Tokens,
    dev: Tokens,
    args,
    checkpoint: Checkpoint,
    group: Group = ALONE,
    journal: Journal | None = None,
    clock: Clock | None = None,
) -> dict:
    """Train the head and what `learn` names, as the flags of train.py say.

    Returns the line of history of the epoch that is kept. A run that is resumed goes on where its
    journal stopped.
    """
    journal, clock = journal or Journal(), clock or Clock()

    def states():
        found = [keep(model, texts, checkpoint, group, args.quiet) for texts in (train, dev)]
        clock.lap("frozen")
        return found

    recipe = recipe_of(vars(args))
    if args.freeze_trunk or (args.warm_head and not journal.is_past("head")):
        freeze(model, set())
        vectors, first = states(), recipe
        if args.warm_head:  # --epochs, --lr and --weight-decay are for what comes after
            own = {"lr": HEAD.lr, "weight_decay": HEAD.weight_decay}
            first = dataclasses.replace(recipe, epochs=args.warm_head, **own)
        kept, _ = fit_head(model, *vectors, first, group, args.quiet, journal)
        clock.lap("fit")
    freeze(model, learn)
    if not args.freeze_trunk:
        kept, _ = fit(model, *states(), recipe, group, args.quiet, journal)
        clock.lap("fit")
    return kept
