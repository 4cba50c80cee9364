"""Text from the language model: the trunk's own task, which no classifier ever changes."""

import codecs
from collections.abc import Iterator

import tiktoken
import torch

from minigpt.edge.errors import InputError
from minigpt.model import GPT2, Past


@torch.no_grad()
def generate_ids(
    trunk: GPT2,
    ids: list[int],
    tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
    vocabulary: int | None = None,
) -> Iterator[int]:
    """Yield up to `tokens` next tokens, each drawn from softmax(logits / temperature).

    With `top_k`, only the k likeliest are drawn from (Fan et al. 2018); temperature 0 takes the
    likeliest. Each token is read once and remembered in the past. When the context is full, its
    later half is read again from position 0, so that there is room to continue. `vocabulary` is the
    number of tokens there are, for a `wte` with more rows than that (some are rounded up).
    """
    device = trunk.wte.weight.device
    generator = torch.Generator().manual_seed(seed)
    context = trunk.config.n_positions
    ids = ids[-context:]
    past = [Past() for _ in trunk.h]
    unread = ids
    for _ in range(tokens):
        if len(past[0]) + len(unread) > context:
            past = [Past() for _ in trunk.h]
            unread = ids = ids[-max(1, context // 2) :]
        hidden = trunk(torch.tensor([unread], device=device), past)
        logits = trunk.next_token_logits(hidden[0, -1]).cpu().double()[:vocabulary]  # (V,)
        if not logits.isfinite().all():
            raise InputError("the logits of the next token are not finite: damaged weights?")
        if temperature == 0:
            token = int(logits.argmax())
        else:
            if top_k is not None and top_k < len(logits):
                logits[logits < logits.topk(top_k).values[-1]] = -torch.inf
            chances = ((logits - logits.max()) / temperature).softmax(0)
            token = int(torch.multinomial(chances, 1, generator=generator))
        yield token
        ids = [*ids, token]
        unread = [token]


def generate_text(trunk: GPT2, tokenizer: tiktoken.Encoding, prompt: str, **how) -> Iterator[str]:
    """Yield the continuation of a prompt piece by piece, up to the end of the text.

    An empty prompt starts a new text. A character whose bytes are spread over several tokens comes
    out when it is whole.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    ids = tokenizer.encode_ordinary(prompt) or [tokenizer.eot_token]
    for token in generate_ids(trunk, ids, vocabulary=tokenizer.n_vocab, **how):
        if token == tokenizer.eot_token:
            break
        yield decoder.decode(tokenizer.decode_single_token_bytes(token))
    yield decoder.decode(b"", final=True)
