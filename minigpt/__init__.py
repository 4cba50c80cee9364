"""A GPT-2 small enough to read, and the classifier that stands on its last token."""

__version__ = "0.2.0"
