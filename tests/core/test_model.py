"""The transformer by hand, held against transformers and against itself."""

import random

import pytest
import torch
from common import oracle_of
from conftest import random_trunk

from minigpt.language.generate import generate_ids, generate_text
from minigpt.language.initialize import initialize
from minigpt.model import Past, attention, fused_attention
from minigpt.tokenizer import load_tokenizer

transformers = pytest.importorskip("transformers")


def sizes(seed: int) -> dict:
    """Draw the sizes of a small GPT-2: odd head counts, widths, contexts and epsilons."""
    draw = random.Random(seed)
    heads, width = draw.choice([1, 2, 3, 5, 7]), draw.choice([1, 3, 4, 8, 13])
    return {
        "vocab_size": draw.randint(11, 400),
        "n_positions": draw.randint(12, 70),
        "n_embd": heads * width,
        "n_head": heads,
        "n_layer": draw.randint(1, 4),
        "n_inner": draw.choice([None, None, 17, 64]),
        "layer_norm_epsilon": draw.choice([1e-5, 1e-6, 1e-3]),
    }


@pytest.mark.parametrize("seed", range(20))
@torch.no_grad()
def test_next_token_logits_are_those_of_transformers(seed):
    trunk = random_trunk(seed, **sizes(seed))
    ids = torch.randint(trunk.config.vocab_size, (3, trunk.config.n_positions))
    ours = trunk.next_token_logits(trunk(ids))
    assert (ours - oracle_of(trunk)(ids).logits).abs().max() <= 1e-4


@pytest.mark.parametrize("dropout", [0.0, 1.0])
@pytest.mark.parametrize("T, S", [(1, 1), (7, 7), (1, 9), (4, 9)])
def test_attention_by_hand_is_the_fused_kernel(T, S, dropout):
    """Also where the last T of S tokens ask; full dropout is the one that can be compared."""
    q, k, v = (torch.randn(2, 3, n, 8) for n in (T, S, S))
    by_hand, fused = attention(q, k, v, dropout), fused_attention(q, k, v, dropout)
    torch.testing.assert_close(by_hand, fused, rtol=1e-5, atol=1e-6)
    assert (by_hand == 0).all() == (dropout == 1.0)


@torch.no_grad()
def test_the_attention_of_a_block_can_be_replaced_from_outside():
    trunk, ids = random_trunk(), torch.randint(200, (2, 30))
    with_kernel = trunk(ids)
    for block in trunk.h:
        block.attn.attention = attention
    torch.testing.assert_close(trunk(ids), with_kernel, rtol=1e-4, atol=1e-5)
    trunk.h[0].attn.attention = lambda q, k, v, dropout: torch.zeros_like(q)
    assert (trunk(ids) - with_kernel).abs().max() > 0.01


@torch.no_grad()
def test_no_token_sees_what_comes_after_it():
    trunk, ids = random_trunk(), torch.randint(200, (1, 30))
    changed = ids.clone()
    changed[:, 20:] = torch.randint(200, (1, 10))
    before, after = trunk(ids), trunk(changed)
    assert torch.equal(before[:, :20], after[:, :20])
    assert (before[:, 20] != after[:, 20]).any()


@torch.no_grad()
def test_reading_in_pieces_with_a_past_is_reading_at_once():
    trunk, ids = random_trunk(), torch.randint(200, (2, 30))
    past = [Past() for _ in trunk.h]
    pieces = [trunk(piece, past) for piece in ids.split([7, 1, 1, 15, 6], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, 1), trunk(ids), rtol=1e-4, atol=1e-5)
    assert len(past[0]) == 30


@torch.no_grad()
def test_greedy_generation_is_that_of_transformers_and_of_no_past():
    trunk, ids = random_trunk(), [5, 17, 101]
    ours = list(generate_ids(trunk, ids, tokens=40, temperature=0))
    theirs = oracle_of(trunk, eos_token_id=None).generate(
        torch.tensor([ids]), max_new_tokens=40, do_sample=False, pad_token_id=0
    )
    assert ours == theirs[0, 3:].tolist()
    for token in ours:
        assert token == trunk.next_token_logits(trunk(torch.tensor([ids]))[0, -1]).argmax()
        ids = [*ids, token]


def test_generation_goes_on_past_the_context():
    trunk = random_trunk(n_positions=16)
    assert len(list(generate_ids(trunk, [1] * 40, tokens=50))) == 50


def test_sampling_is_settled_by_its_seed_and_top_k_1_is_greedy():
    trunk = random_trunk()
    draws = [list(generate_ids(trunk, [1], tokens=20, seed=s)) for s in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    greedy = list(generate_ids(trunk, [1], tokens=20, temperature=0))
    assert list(generate_ids(trunk, [1], tokens=20, top_k=1, seed=3)) == greedy


def test_samples_are_as_frequent_as_the_model_says():
    trunk = random_trunk(vocab_size=6)
    with torch.no_grad():
        hidden = trunk(torch.tensor([[1, 2]]))[0, -1]
        expected = (trunk.next_token_logits(hidden) / 0.7).softmax(0)
    draws = [next(generate_ids(trunk, [1, 2], 1, 0.7, seed=s)) for s in range(2000)]
    frequency = torch.bincount(torch.tensor(draws), minlength=6) / len(draws)
    assert (frequency - expected).abs().max() < 0.05


def test_a_character_spread_over_tokens_comes_out_whole(checkpoint):
    tokenizer = load_tokenizer(checkpoint)
    smile = tokenizer.encode_ordinary("😀 é")
    assert len(smile) > 4
    said = iter([*smile, tokenizer.eot_token])
    trunk = random_trunk()
    trunk.next_token_logits = lambda hidden: torch.eye(268)[next(said)]  # a model that says just it
    assert "".join(generate_text(trunk, tokenizer, "", tokens=20, temperature=0)) == "😀 é"


def test_a_trunk_starts_as_gpt2_did():
    trunk = initialize(random_trunk(n_layer=8, n_embd=96, n_head=4, vocab_size=999))
    for name, parameter in trunk.named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all()
        elif ".ln_" in f".{name}":
            assert (parameter == 1).all()
        else:
            expected = 0.01 if name == "wpe.weight" else 0.005 if "c_proj" in name else 0.02
            assert abs(parameter.std() - expected) < 0.05 * expected, name
