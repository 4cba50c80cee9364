"""What is put on a frozen trunk: held against the peft library, finite differences, and itself."""

import numpy as np
import pytest
import torch
from common import oracle_of, some_texts
from conftest import LORA, random_trunk

from minigpt.checkpoints import describe
from minigpt.classifier import Classifier
from minigpt.cli.predict import rate
from minigpt.edge.errors import InputError
from minigpt.fast.frozen import FrozenPart, first_to_learn, keep
from minigpt.fit import Recipe, evaluate, fit
from minigpt.freeze import PRESETS, count, freeze, frozen_unchanged, names_to_learn, train_mode
from minigpt.model import Past
from minigpt.peft.methods import LoRALinear, merge, put_on
from minigpt.runs.folder import Run, load_run, save_run
from minigpt.tokenizer import load_tokenizer
from minigpt.weights import load_trunk

METHODS = [
    LORA,
    LORA | {"lora_on": "c_attn,mlp.c_*", "in_last": 2},
    {"adapter": 5},
    {"adapter": 5, "in_last": 1},
    {"prompt": 4},
    {"prefix": 4},
]
AT_FIRST = METHODS[:4]  # those that change nothing at the start
RECIPE = Recipe(2, 8, 1e-2, 0.1, 0.1, 1.0, 1, seed=0)


def some_ids(texts=4, tokens=20):
    return torch.randint(200, (texts, tokens), generator=torch.Generator().manual_seed(0))


def tuned(flags, seed=0, trunk=None, size=0.1) -> tuple[Classifier, set[str]]:
    """Return a classifier with something put on that is not zero any more, and what that is."""
    trunk = trunk or random_trunk(seed)
    torch.manual_seed(seed)
    added = put_on(trunk, flags)
    model = Classifier(trunk, 2).eval()
    freeze(model, added)
    with torch.no_grad():
        for name in added:
            trunk.get_parameter(name).add_(torch.randn(trunk.get_parameter(name).shape) * size)
    return model, added


@pytest.mark.parametrize("flags", AT_FIRST, ids=str)
@torch.no_grad()
def test_lora_and_adapters_change_nothing_at_the_start(flags):
    trunk, expected = random_trunk(), random_trunk()(some_ids())
    assert put_on(trunk, flags)
    assert torch.equal(trunk(some_ids()), expected)


@pytest.mark.parametrize("flags", METHODS, ids=str)
def test_what_was_put_on_and_the_head_learn_and_nothing_else_moves(flags, checkpoint):
    found = describe("x", checkpoint)
    trunk = load_trunk(found.folder)
    torch.manual_seed(0)
    added = put_on(trunk, flags)
    model, texts = Classifier(trunk, 2), some_texts()
    freeze(model, added)
    learn = {f"transformer.{name}" for name in added} | {"score.weight"}
    assert {name for name, p in model.named_parameters() if p.requires_grad} == learn

    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    fit(model, *(keep(model, texts, found) for _ in "td"), RECIPE)
    moved = {n for n, p in model.named_parameters() if not torch.equal(p.detach(), before[n])}
    assert moved == learn
    assert frozen_unchanged(model, found)


@pytest.mark.parametrize("flags", [LORA, {"adapter": 5}], ids=str)
def test_below_what_learns_all_is_computed_once(flags, checkpoint):
    """In the last block only: training begins at block 2, and comes to what it would from ids."""
    found, texts, results = describe("x", checkpoint), some_texts(), []
    for kept in (True, False):
        trunk = load_trunk(found.folder, dropout=0.0)
        torch.manual_seed(0)
        added = put_on(trunk, flags | {"in_last": 1})
        model = Classifier(trunk, 2)
        freeze(model, added)
        assert first_to_learn(trunk) == 2
        data = keep(model, texts, found) if kept else texts
        fit(model, data, data, RECIPE)
        results.append([p.detach() for p in model.parameters() if p.requires_grad])
    for once, anew in zip(*results, strict=True):
        torch.testing.assert_close(once, anew, rtol=1e-4, atol=1e-5)


def test_each_method_learns_as_many_numbers_as_its_formula_says():
    def learning(flags):
        model, _ = tuned(flags)
        return count(model)["learning"] - model.score.weight.numel()

    C, L = 24, 3
    assert learning(LORA) == L * 3 * (C + 3 * C)
    assert learning(LORA | {"lora_on": "mlp.c_fc", "in_last": 2}) == 2 * 3 * (C + 4 * C)
    assert learning({"adapter": 5}) == L * 2 * (2 * C * 5 + 5 + C)
    assert learning({"prompt": 4}) == 4 * C
    assert learning({"prefix": 4}) == 2 * L * 4 * C


def test_presets_name_the_tensors_of_their_papers():
    trunk = random_trunk()
    norms = {"h.{}.ln_1.weight", "h.{}.ln_1.bias", "h.{}.ln_2.weight", "h.{}.ln_2.bias"}
    norms = {name.format(i) for name in norms for i in range(3)} | {"ln_f.weight", "ln_f.bias"}
    assert names_to_learn(trunk, train_only="norms") == norms
    biases = {name for name, _ in trunk.named_parameters() if name.endswith(".bias")}
    assert names_to_learn(trunk, train_only="bitfit") == biases
    assert len(biases) == 3 * 6 + 1 and set(PRESETS) == {"norms", "bitfit"}


@torch.no_grad()
def test_lora_merged_is_lora_and_leaves_plain_layers():
    model, _ = tuned(LORA | {"lora_on": "*"})
    texts, _ = some_texts().batch(np.arange(24))
    expected = model(*texts)
    merge(model.transformer)
    assert not any(isinstance(module, LoRALinear) for module in model.modules())
    assert model.state_dict().keys() == Classifier(random_trunk(), 2).state_dict().keys()
    torch.testing.assert_close(model(*texts), expected, rtol=0, atol=1e-5)


def test_lora_drops_out_while_it_learns_and_not_when_it_reads():
    model, _ = tuned(LORA | {"lora_dropout": 0.5})
    layer, x = model.transformer.h[0].attn.c_attn, torch.randn(2, 24)
    train_mode(model)
    assert not torch.equal(layer(x), layer(x))
    model.eval()
    assert torch.equal(layer(x), layer(x))


@torch.no_grad()
def test_a_prefix_is_a_past():
    """Keys and values of tokens that were read, put in as a prefix, give what reading on gives."""
    trunk, ids = random_trunk(), some_ids(1, 20)
    past = [Past() for _ in trunk.h]
    trunk(ids[:, :4], past)
    keys, values = (torch.cat([getattr(p, n) for p in past]) for n in ("keys", "values"))
    expected = trunk(ids)[:, 4:]

    put_on(trunk, {"prefix": 4})
    trunk.prefix.keys.copy_(keys)
    trunk.prefix.values.copy_(values)
    torch.testing.assert_close(trunk(ids[:, 4:]), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_prompt_is_tokens():
    """The embeddings of tokens, put in as a prompt, give what those tokens give."""
    trunk, ids = random_trunk(), some_ids(1, 20)
    expected = trunk(ids)[:, 4:]
    vectors = trunk.wte.weight[ids[0, :4]]
    put_on(trunk, {"prompt": 4})
    trunk.wte.prompt.copy_(vectors)
    torch.testing.assert_close(trunk(ids[:, 4:]), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("pooling", ["last", "first", "mean", "max"])
@pytest.mark.parametrize("flags", [{"prompt": 4}, {"prefix": 4}], ids=str)
@torch.no_grad()
def test_a_text_has_the_same_logits_alone_and_in_a_batch_behind_a_prompt(flags, pooling):
    model, _ = tuned(flags)
    model.pooling, texts = pooling, some_texts()
    together = model(*texts.batch(np.arange(24))[0])
    alone = torch.cat([model(*texts.batch(np.array([i]))[0]) for i in range(24)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("flags", METHODS, ids=str)
@torch.no_grad()
def test_reading_only_gives_the_same_logits(flags, pooling):
    """As `predict` does it: nothing learns any more, and the trunk is packed."""
    model, added = tuned(flags)
    model.pooling, texts = pooling, some_texts()
    expected = model(*texts.batch(np.arange(24))[0])
    for learn in (added, set()):
        freeze(model, learn)
        logits = evaluate(model, FrozenPart(model).of(texts))
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("flags", METHODS, ids=str)
def test_gradients_are_those_of_finite_differences(flags):
    """In float64, over every number that was put on, along random directions."""
    trunk = random_trunk(n_layer=2, n_embd=8)
    _, added = tuned(flags, trunk=trunk)
    names, ids = sorted(added), some_ids(3, 6)
    trunk.double()

    def hidden(*values):
        return torch.func.functional_call(trunk, dict(zip(names, values, strict=True)), ids)

    values = [trunk.get_parameter(name).detach().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(hidden, values, eps=1e-6, atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("flags", METHODS, ids=str)
def test_a_run_saved_and_opened_again_answers_the_same_bit_for_bit(flags, checkpoint, tmp_path):
    found, tokenizer = describe(str(checkpoint), checkpoint), load_tokenizer(checkpoint)
    trunk = load_trunk(found.folder)
    torch.manual_seed(0)
    model = Classifier(trunk, 2)
    freeze(model, put_on(trunk, flags))
    fit(model, some_texts(), some_texts(), RECIPE)
    plain = {"pool": "last", "dtype": "float32", "append_end": False, "max_length": 50}
    metrics = {
        "weights": {"name": found.name, "sha256": found.sha256},
        "data": {"labels": ["no", "yes"]},
        "recipe": plain | flags,
    }
    save_run(folder := tmp_path / "run", model, metrics)
    freeze(model, set())  # as `load_run` leaves it: nothing learns any more
    in_memory = Run(model.eval(), tokenizer, ("no", "yes"), plain | flags, found)
    for texts in (["good"], ["a bad one", "", "the good, the bad"] * 9):
        ours, again = (
            rate(run, FrozenPart(run.model), texts) for run in (in_memory, load_run(str(folder)))
        )
        assert torch.equal(ours, again)


def peft_config(flags):
    peft = pytest.importorskip("peft")
    if "lora" in flags:
        where = flags["lora_on"].split(",")
        return peft.LoraConfig(
            task_type="SEQ_CLS", r=3, lora_alpha=12, target_modules=where, fan_in_fan_out=True
        )
    kind = peft.PromptTuningConfig if "prompt" in flags else peft.PrefixTuningConfig
    return kind(task_type="SEQ_CLS", num_virtual_tokens=4)


@pytest.mark.parametrize("flags", [LORA, {"prompt": 4}, {"prefix": 4}], ids=str)
@torch.no_grad()
def test_the_same_weights_give_the_same_logits_in_the_peft_library(flags):
    """And learn as many numbers. Text by text: behind a prompt, the library's model is given no ids
    and reads at the last place of a padded batch, where there is padding."""
    peft = pytest.importorskip("peft")
    model, _ = tuned(flags)
    trunk = model.transformer
    kind = "GPT2ForSequenceClassification"
    base = oracle_of(random_trunk(), kind, num_labels=2, pad_token_id=0)
    base.score.load_state_dict(model.score.state_dict())
    theirs = peft.get_peft_model(base, peft_config(flags)).eval()
    assert theirs.get_nb_trainable_parameters()[0] == count(model)["learning"]

    if "lora" in flags:
        for name, module in theirs.named_modules():
            if name.endswith("c_attn"):
                ours = trunk.get_submodule(name.removeprefix("base_model.model.transformer."))
                module.lora_A["default"].weight.copy_(ours.lora_A.T)
                module.lora_B["default"].weight.copy_(ours.lora_B.T)
    elif "prompt" in flags:
        theirs.prompt_encoder["default"].embedding.weight.copy_(trunk.wte.prompt)
    else:
        pairs = torch.stack((trunk.prefix.keys, trunk.prefix.values), 1)  # (L, 2, H, N, D)
        flat = pairs.permute(3, 0, 1, 2, 4).reshape(4, -1)  # (N, L 2 C)
        theirs.prompt_encoder["default"].embedding.weight.copy_(flat)
    for n in (1, 7, 30):
        ids = some_ids(1, n)
        expected = theirs(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        assert (model(ids, torch.tensor([n])) - expected).abs().max() <= 1e-4


@pytest.mark.parametrize(
    "flags, said",
    [
        (LORA | {"lora": 0}, "--lora 0: it can be 1 to 24"),
        (LORA | {"lora": 25}, "--lora 25"),
        ({"adapter": 0}, "--adapter 0"),
        ({"prompt": 64}, "--prompt 64: 1 to 63 leave room"),
        ({"prefix": 0}, "--prefix 0"),
        (LORA | {"lora_on": "c_atn"}, "--lora-on 'c_atn' matches no layer; they are like h.0.attn"),
        (LORA | {"in_last": 4}, "--in-last 4: the trunk has blocks 1 to 3"),
    ],
    ids=str,
)
def test_what_does_not_fit_the_trunk_is_refused(flags, said):
    with pytest.raises(InputError, match=said.replace("(", r"\(")):
        put_on(random_trunk(), flags)
