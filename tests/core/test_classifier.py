"""Pooling and the head: one vector out of a text, whatever batch it is in."""

import pytest
import torch
from conftest import random_trunk
from test_model import oracle_of, sizes

from minigpt.classifier import POOLINGS, Classifier, pool
from minigpt.config import GPT2Config
from minigpt.model import GPT2, initialize

transformers = pytest.importorskip("transformers")


def padded(texts, pad=0, left=False):
    """Return (B, T) ids and (B,) lengths of a batch of id lists."""
    longest = max(map(len, texts))
    rows = [
        [pad] * (longest - len(t)) + t if left else t + [pad] * (longest - len(t)) for t in texts
    ]
    return torch.tensor(rows), torch.tensor([len(t) for t in texts])


def some_texts(seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = [1, 5, 12, 33, 60, 2, 59]
    return [torch.randint(1, 250, (n,), generator=generator).tolist() for n in lengths]


@pytest.mark.parametrize("how", POOLINGS)
def test_pooling_is_what_its_name_says(how):
    texts = [torch.randn(n, 8) for n in (1, 4, 9)]
    hidden = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=1e9)
    by_name = {
        "last": lambda h: h[-1],
        "first": lambda h: h[0],
        "mean": lambda h: h.mean(0),
        "max": lambda h: h.max(0).values,
    }
    expected = torch.stack([by_name[how](text) for text in texts])
    torch.testing.assert_close(pool(hidden, torch.tensor([1, 4, 9]), how), expected)


def test_an_unknown_pooling_is_refused():
    with pytest.raises(ValueError, match="median"):
        pool(torch.zeros(1, 1, 1), torch.ones(1), "median")


@pytest.mark.parametrize("how", POOLINGS)
@pytest.mark.parametrize("pad", [0, 7])
@torch.no_grad()
def test_a_text_has_the_same_logits_alone_and_in_any_batch(how, pad):
    model = Classifier(random_trunk(), 3, how).eval()
    texts = some_texts()
    in_batch = model(*padded(texts, pad))
    alone = torch.cat([model(*padded([text])) for text in texts])
    torch.testing.assert_close(in_batch, alone, rtol=0, atol=1e-5)


@torch.no_grad()
def difference(trunk, texts, left: bool) -> float:
    """Return how far class scores are from those of transformers, padded on one side or the other.

    The pad token is one that no text has: transformers finds the last token by it.
    """
    model, pad = Classifier(trunk, 3).eval(), trunk.config.vocab_size - 1
    oracle = oracle_of(trunk, "GPT2ForSequenceClassification", num_labels=3, pad_token_id=pad)
    oracle.score.load_state_dict(model.score.state_dict())
    ids, lengths = padded(texts, pad, left)
    places = torch.arange(ids.size(1))
    real = places >= ids.size(1) - lengths[:, None] if left else places < lengths[:, None]
    theirs = oracle(ids, attention_mask=real.long(), position_ids=(real.cumsum(1) - 1).clamp(min=0))
    return (model(*padded(texts)) - theirs.logits).abs().max().item()


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_logits_are_those_of_transformers_padded_on_either_side(seed, left):
    trunk = random_trunk(seed, **sizes(seed))
    context, words = trunk.config.n_positions, trunk.config.vocab_size - 1
    texts = [torch.randint(words, (n,)).tolist() for n in (1, 5, context // 2, context)]
    assert difference(trunk, texts, left) <= 1e-4


def test_logits_of_the_official_shape_are_those_of_transformers():
    trunk = initialize(GPT2(GPT2Config())).eval()
    texts = [torch.randint(50256, (n,)).tolist() for n in (1, 30, 77)]
    assert difference(trunk, texts, left=True) <= 1e-4
    assert difference(trunk, texts, left=False) <= 1e-4


def test_the_state_dict_has_the_names_of_transformers():
    model = Classifier(random_trunk(), 2)
    kind = "GPT2ForSequenceClassification"
    oracle = oracle_of(model.transformer, kind, num_labels=2)
    shapes = {name: p.shape for name, p in oracle.named_parameters()}
    assert {name: p.shape for name, p in model.named_parameters()} == shapes
