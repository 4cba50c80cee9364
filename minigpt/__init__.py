"""A GPT-2 small enough to read, and the classifier that stands on its last token."""

__version__ = "0.2.0"
__all__ = ["InputError", "__version__", "load", "train", "trunk"]


def __getattr__(name: str):
    """Load what is called from Python when it is first used (PEP 562): it takes torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from minigpt import python

    return getattr(python, name)


def __dir__():
    return sorted({*globals(), *__all__})
