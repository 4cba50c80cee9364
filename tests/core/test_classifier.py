"""Pooling and the head: one vector out of a text, whatever batch it is in."""

import pytest
import torch
from conftest import odd_sizes, oracle_of, random_trunk

from minigpt.classifier import POOLINGS, Classifier, pool
from minigpt.config import GPT2Config
from minigpt.model import GPT2

KIND = "GPT2ForSequenceClassification"


def padded(texts, pad=0, left=False):
    """Return (B, T) ids and (B,) lengths of a batch of id lists."""
    longest = max(map(len, texts))
    rows = [
        [pad] * (longest - len(t)) + t if left else t + [pad] * (longest - len(t)) for t in texts
    ]
    return torch.tensor(rows), torch.tensor([len(t) for t in texts])


def texts_of(lengths, words=250):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(1, words, (n,), generator=generator).tolist() for n in lengths]


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
    """Padding does not matter: neither how much of it there is, nor which id it has."""
    model, texts = Classifier(random_trunk(), 3, how).eval(), texts_of([1, 5, 12, 33, 60, 2, 59])
    in_batch = model(*padded(texts, pad))
    alone = torch.cat([model(*padded([text])) for text in texts])
    torch.testing.assert_close(in_batch, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("how", ["last", "first", "mean"])
@torch.no_grad()
def test_the_first_vector_knows_one_token_and_the_last_and_the_mean_know_all(how):
    model = Classifier(random_trunk(), 2, how).eval()
    ids, lengths = padded(texts_of([30]))
    vector = model.pooled(ids, lengths)
    knows = []
    for place in range(30):
        changed = ids.clone()
        changed[0, place] = 251
        knows.append(not torch.equal(model.pooled(changed, lengths), vector))
    assert knows == [how != "first" or place == 0 for place in range(30)]


@torch.no_grad()
def difference(model, oracle, texts, left: bool) -> float:
    """Return how far class scores are from those of transformers, padded on one side or the other.

    The pad token is one that no text has: transformers finds the last token by it.
    """
    ids, lengths = padded(texts, oracle.config.pad_token_id, left)
    places = torch.arange(ids.size(1))
    real = places >= ids.size(1) - lengths[:, None] if left else places < lengths[:, None]
    theirs = oracle(ids, attention_mask=real.long(), position_ids=(real.cumsum(1) - 1).clamp(min=0))
    return (model(*padded(texts)) - theirs.logits).abs().max().item()


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_logits_are_those_of_transformers_padded_on_either_side(seed, left):
    trunk = random_trunk(seed, **odd_sizes(seed))
    context, pad = trunk.config.n_positions, trunk.config.vocab_size - 1
    model, oracle = Classifier(trunk, 3).eval(), oracle_of(trunk, KIND, num_labels=3)
    oracle.config.pad_token_id = pad
    oracle.score.load_state_dict(model.score.state_dict())
    assert difference(model, oracle, texts_of([1, 5, context // 2, context], pad), left) <= 1e-4


def test_logits_of_the_official_shape_are_those_of_transformers():
    """124M parameters, with the random values that transformers begins with."""
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(num_labels=3, pad_token_id=50256)
    oracle = getattr(transformers, KIND)(config).eval()
    with torch.device("meta"):
        model = Classifier(GPT2(GPT2Config()), 3)
    model.load_state_dict(oracle.state_dict(), assign=True)
    for left in (False, True):
        assert difference(model.eval(), oracle, texts_of([1, 7, 20], 50256), left) <= 1e-4


def test_names_and_shapes_of_parameters_are_those_of_transformers():
    model = Classifier(random_trunk(), 2)
    oracle = oracle_of(model.transformer, KIND, num_labels=2)
    shapes = {name: p.shape for name, p in oracle.named_parameters()}
    assert {name: p.shape for name, p in model.named_parameters()} == shapes
