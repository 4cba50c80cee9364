"""Text from the language model, and the random values with which a language model begins."""

import pytest
import torch
from conftest import oracle_of, random_trunk

from minigpt.language.generate import generate_ids, generate_text
from minigpt.language.initialize import initialize
from minigpt.tokenizer import load_tokenizer


@torch.no_grad()
def test_greedy_generation_is_that_of_transformers_and_of_no_past():
    pytest.importorskip("transformers")
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
