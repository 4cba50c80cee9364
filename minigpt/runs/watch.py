"""What looks at a training from outside: each wraps the steps of `fit`, or of another wrapper."""

import contextlib
import math
import signal
import sys
import time

import torch

from minigpt.edge.errors import InputError
from minigpt.edge.progress import bar
from minigpt.fit import Training, learning_rate


class NotFinite(InputError):
    """A training went wrong: something in it is NaN or infinite."""


def finite(steps, t: Training, unread: list):
    """Yield each step; raise NotFinite at the first loss or gradient that is NaN or infinite.

    `unread` gets the (loss, gradient norm) of steps that have not been checked, since to read them
    from a GPU is to wait for it.
    """
    for _ in steps:
        evaluated = not t.losses
        if not evaluated:
            unread.append(torch.stack((t.losses[-1], t.gradient_norm)))
        if evaluated or unread[-1].device.type == "cpu":
            check(unread, t)
        if evaluated and not math.isfinite(t.history[-1]["dev_loss"]):
            if t.step == 0:
                raise InputError("the loss is not finite before training begins: damaged weights?")
            raise not_finite("loss on dev", t.step, t)
        yield t


def check(unread: list, t: Training) -> None:
    """Raise NotFinite if one of the last steps had a loss or gradient that is not finite.

    `unread` has the (loss, gradient norm) of each step up to `t.step`, and is emptied.
    """
    if not unread:
        return
    good = torch.stack(unread).isfinite().all(1).tolist()
    unread.clear()
    if not all(good):
        raise not_finite("loss or the gradient", t.step - len(good) + 1 + good.index(False), t)


def not_finite(what: str, step: int, t: Training) -> NotFinite:
    """Return the error for a training gone wrong: where, at what rate, and what to do."""
    lr = learning_rate(step - 1, t.steps, t.recipe)
    return NotFinite(
        f"the {what} is not finite (NaN or inf) at step {step} of {t.steps} (learning rate "
        f"{lr:.1e}); start again, and try a tenth of --lr {t.recipe.lr:g}"
    )


def progress(steps, t: Training, texts: int, hide: bool):
    """Yield each step, with a progress bar."""
    total, shown = t.recipe.epochs * texts, time.monotonic()
    done = t.step * texts // t.steps_per_epoch
    with bar(total, hide, initial=done, unit=" texts") as shown_bar:
        for _ in steps:
            shown_bar.update(t.step * texts // t.steps_per_epoch - shown_bar.n)
            if not t.losses:
                accuracy = t.history[-1]["dev_accuracy"]
                shown_bar.set_description(f"dev accuracy {accuracy:.1%}", refresh=False)
            elif not shown_bar.disable and time.monotonic() - shown > 1:  # a GPU is waited for
                shown, lr = time.monotonic(), t.optimizer.param_groups[0]["lr"]
                per_text = t.losses[-1].item() / (t.recipe.batch_size * t.recipe.accumulate)
                figures = {"loss": f"{per_text:.3f}", "lr": f"{lr:.1e}"}
                shown_bar.set_postfix(figures, refresh=False)
            yield t


class Signals:
    """Has Ctrl-C and SIGTERM wait for the end of a step; the second of them does not wait."""

    def __init__(self, say: bool):
        self.received, self.say = None, say

    def receive(self, number: int, _) -> None:
        if self.received is not None:
            signal.signal(number, self.before[number])
            signal.raise_signal(number)
            return
        self.received = number
        if self.say:
            with contextlib.suppress(OSError):  # Ctrl-C has ended the reader, too: `2>&1 | tee`
                print("\nstopping after this step; press again to stop now", file=sys.stderr)

    def __enter__(self):
        numbers = (signal.SIGINT, signal.SIGTERM)
        self.before = {number: signal.signal(number, self.receive) for number in numbers}
        return self

    def __exit__(self, *_):
        for number, handler in self.before.items():
            if signal.getsignal(number) == self.receive:  # not after a second signal
                signal.signal(number, handler)
