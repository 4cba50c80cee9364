"""The GPT-2 itself, from Python."""

import tiktoken

from minigpt.checkpoints import find_checkpoint, open_tokenizer
from minigpt.cli.flag_types import refuse_run
from minigpt.model import GPT2
from minigpt.weights import load_trunk


def trunk(name: str | None = None) -> tuple[GPT2, tiktoken.Encoding]:
    """Return the trunk that --weights names, in eval mode, and its tokenizer. Raises InputError.

    `trunk(ids)` gives the hidden states of token ids: (B, T) -> (B, T, C).

    >>> import minigpt, torch
    >>> trunk, tokenizer = minigpt.trunk("tiny")
    >>> ids = torch.tensor([tokenizer.encode_ordinary("A warm, clever film")])
    >>> ids.shape, trunk(ids).shape
    (torch.Size([1, 5]), torch.Size([1, 5, 256]))
    """
    refuse_run(name, "open a run with minigpt.load")
    checkpoint = find_checkpoint(name)
    return load_trunk(checkpoint.folder), open_tokenizer(checkpoint)
