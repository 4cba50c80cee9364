"""python -m minigpt explain: the experiments."""

from minigpt.explain.run import explain

__all__ = ["explain"]
