"""The trunk's own task, predicting the next token: text from it, and where its training begins."""

from minigpt.language.generate import generate_ids, generate_text
from minigpt.language.initialize import initialize

__all__ = ["generate_ids", "generate_text", "initialize"]
