"""What a folder of weights must be before the core opens it: found, downloaded, verified.

    checkpoint = find_checkpoint("gpt2")        # a Checkpoint: name, folder, sha256, config
    trunk = load_trunk(checkpoint.folder)       # of the core, which trusts what is there
    tokenizer = open_tokenizer(checkpoint)      # from vocab.json and merges.txt, or tokenizer.json
    head = read_head(checkpoint)                # of a GPT2ForSequenceClassification, or None

`describe` verifies a folder that is at hand, `earlier_weights` one of a snapshot; `from_hub` also
downloads data sets. Whatever is not as it should be raises InputError, in one line that names file,
field or tensor.
"""

from minigpt.checkpoints.find import (
    OFFICIAL,
    Checkpoint,
    describe,
    earlier_weights,
    find_checkpoint,
    open_tokenizer,
)
from minigpt.checkpoints.hub import from_hub
from minigpt.checkpoints.score import read_head, take_over
from minigpt.checkpoints.vocabulary import Vocabulary, read_vocabulary

__all__ = [
    "OFFICIAL",
    "Checkpoint",
    "Vocabulary",
    "describe",
    "earlier_weights",
    "find_checkpoint",
    "from_hub",
    "open_tokenizer",
    "read_head",
    "read_vocabulary",
    "take_over",
]
