"""What train.py does, from Python: keywords become its flags, and the job is train.py's own."""

from pathlib import Path

import torch

from minigpt import runs
from minigpt.cli.train import script
from minigpt.cli.train_flags import parse, parser_of
from minigpt.datasets import Given
from minigpt.parallel.group import GROUP_OF_ONE
from minigpt.python.classifier import TextClassifier, load

WHO = "python -m minigpt train"  # whose --help an error points to


def train(data=None, *, quiet: bool = True, **flags) -> TextClassifier:
    """Train a classifier as train.py does, and return it. Raises InputError.

    `data` is what --data takes, or (texts, labels), or a data frame with the columns of a file.
    Keywords are the flags of train.py, which `python train.py --help` lists: freeze_trunk=True is
    --freeze-trunk, and lr=1e-3 is --lr 1e-3. Nothing is printed on stdout unless `quiet` is False.

    >>> import minigpt
    >>> data = ["A joy.", "A bore."] * 20, ["good", "bad"] * 20
    >>> run = minigpt.train(data, weights="tiny", freeze_trunk=True, epochs=5)
    >>> run.labels
    ['bad', 'good']
    >>> run.folder.as_posix()
    'runs/tiny-in-memory-freeze-trunk-last'
    """
    named = data is None or isinstance(data, str | Path)
    typed = parse("", flags_of(flags | {"data": data if named else None, "quiet": quiet}), WHO)
    if not named:
        typed.data = Given(data)
    # The caller's random numbers are the caller's, and training needs gradients wherever it is
    with torch.random.fork_rng(), torch.inference_mode(False), torch.enable_grad():
        metrics, folder = script().job(typed, runs.Clock(), GROUP_OF_ONE)
    if not quiet:
        print(runs.report(metrics, folder))
    return load(folder, typed.device)


def flags_of(keywords: dict) -> list[str]:
    """Return keywords as flags. Raises InputError for those that train.py does not have."""
    parser, argv = parser_of("", WHO), []
    known = vars(parser.parse_args([]))
    for name, value in keywords.items():
        flag = "--" + name.replace("_", "-")
        if name not in known:
            parser.error(f"unrecognized arguments: {flag}")
        if value is True:
            argv.append(flag)
        elif value is not None and value is not False:
            argv.append(f"{flag}={value}")
    return argv
