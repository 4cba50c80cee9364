"""The transformer by hand, held against transformers and against itself."""

import pytest
import torch
from conftest import odd_sizes, oracle_of, random_trunk

from minigpt.model import Past, attention, fused_attention


def some_ids(texts=2, tokens=30):
    return torch.randint(200, (texts, tokens), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("seed", range(20))
@torch.no_grad()
def test_next_token_logits_are_those_of_transformers(seed):
    trunk = random_trunk(seed, **odd_sizes(seed))
    ids = torch.randint(trunk.config.vocab_size, (3, trunk.config.n_positions))
    ours = trunk.next_token_logits(trunk(ids))
    assert (ours - oracle_of(trunk)(ids).logits).abs().max() <= 1e-4


@torch.no_grad()
def test_no_token_sees_what_comes_after_it():
    """Causality, to the bit: this is also why padding on the right cannot matter."""
    trunk, ids = random_trunk(), some_ids()
    changed = ids.clone()
    changed[:, 20:] = 200 - ids[:, 20:]
    before, after = trunk(ids), trunk(changed)
    assert torch.equal(before[:, :20], after[:, :20])
    assert (before[:, 20:] != after[:, 20:]).any(2).all()


@torch.no_grad()
def test_every_token_is_seen_by_all_that_come_after_it_and_in_its_place():
    trunk, ids = random_trunk(), some_ids(texts=1)
    last = trunk(ids)[0, -1]
    for place in range(29):
        changed = ids.clone()
        changed[0, place] = 200 - ids[0, place]
        assert not torch.equal(trunk(changed)[0, -1], last), place
    swapped = ids.clone()
    swapped[0, [3, 11]] = ids[0, [11, 3]]  # the same tokens in another order
    assert (trunk(swapped)[0, -1] - last).abs().max() > 1e-3


@torch.no_grad()
def test_tokens_exchange_information_in_attention_and_nowhere_else():
    trunk, ids = random_trunk(), some_ids(texts=1)
    for block in trunk.h:
        block.attn.attention = lambda q, k, v, dropout: torch.zeros_like(q)
    changed = 200 - ids
    changed[0, 17] = ids[0, 17]
    same = (trunk(ids) == trunk(changed)).all(2)[0]
    assert same.nonzero().tolist() == [[17]]


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
    trunk, ids = random_trunk(), some_ids()
    with_kernel = trunk(ids)
    for block in trunk.h:
        block.attn.attention = attention
    torch.testing.assert_close(trunk(ids), with_kernel, rtol=1e-4, atol=1e-5)
    trunk.h[0].attn.attention = lambda q, k, v, dropout: torch.zeros_like(q)
    assert (trunk(ids) - with_kernel).abs().max() > 0.01


@torch.no_grad()
def test_reading_in_pieces_with_a_past_is_reading_at_once():
    trunk, ids = random_trunk(), some_ids()
    past = [Past() for _ in trunk.h]
    pieces = [trunk(piece, past) for piece in ids.split([7, 1, 1, 15, 6], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, 1), trunk(ids), rtol=1e-4, atol=1e-5)
    assert [len(one) for one in past] == [30] * 3


@torch.no_grad()
def test_a_pass_is_the_embeddings_then_each_block_then_the_last_norm():
    """`embed`, `h` and `ln_f` can be composed, and give to the bit what `forward` gives."""
    trunk, ids = random_trunk(), some_ids()
    x = trunk.embed(ids)
    for block in trunk.h:
        x = block(x)
    assert torch.equal(trunk.ln_f(x), trunk(ids))


@torch.no_grad()
def test_two_passes_differ_in_training_mode_and_are_equal_in_eval_mode():
    trunk, ids = random_trunk(), some_ids()
    assert torch.equal(trunk(ids), trunk(ids))
    trunk.train()
    assert not torch.equal(trunk(ids), trunk(ids))
