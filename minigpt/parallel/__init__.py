"""Several processes at one job, as torchrun starts them: what `fit` is handed to share batches."""

from minigpt.parallel.group import ALONE, Group, joined

__all__ = ["ALONE", "Group", "joined"]
