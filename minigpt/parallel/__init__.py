"""Several processes at one job, as torchrun starts them: what `fit` is handed to share batches."""

from minigpt.parallel.group import GROUP_OF_ONE, Group, joined

__all__ = ["GROUP_OF_ONE", "Group", "joined"]
