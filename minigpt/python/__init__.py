"""What `import minigpt` offers: from Python what the commands do.

    run = minigpt.train(data, freeze_trunk=True)  # as train.py does; a classifier
    run = minigpt.load(folder)                    # one that was trained before
    run.predict(texts)
    trunk, tokenizer = minigpt.trunk("tiny")      # the GPT-2 itself

What a user can mend raises `minigpt.InputError`, with a message of one line.
"""

from minigpt.edge.errors import InputError
from minigpt.python.classifier import TextClassifier, load
from minigpt.python.training import train
from minigpt.python.trunk import trunk

__all__ = ["InputError", "TextClassifier", "load", "train", "trunk"]
