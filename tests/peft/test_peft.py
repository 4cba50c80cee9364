"""What tuning adds to a frozen trunk: held against the peft library and finite differences."""

import numpy as np
import pytest
import torch
from conftest import LORA, oracle_of, random_trunk, some_texts

from minigpt.checkpoints import describe
from minigpt.classifier import POOLINGS, Classifier
from minigpt.edge.errors import InputError
from minigpt.fast import FrozenPart, PartialClassifier, precompute
from minigpt.fast.frozen import first_trainable
from minigpt.fit import Recipe, Training, train_to_end
from minigpt.freeze import PRESETS, freeze, frozen_unchanged, names_to_train, train_mode, trainable
from minigpt.model import Past
from minigpt.peft import LoRALinear, merge, put_on
from minigpt.runs import Run, load_run, save_run
from minigpt.runs.report import count
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


def tuned(flags, seed=0, trunk=None, size=0.1) -> tuple[PartialClassifier, set[str]]:
    """Return a classifier to which a method has added something that is not zero; and its names."""
    trunk = trunk or random_trunk(seed)
    torch.manual_seed(seed)
    added = put_on(trunk, flags)
    model = PartialClassifier(trunk, 2).eval()
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
def test_what_was_added_and_the_head_are_trained_and_nothing_else_moves(flags, checkpoint):
    base = describe("x", checkpoint)
    trunk = load_trunk(base.folder)
    torch.manual_seed(0)
    added = put_on(trunk, flags)
    model, texts = PartialClassifier(trunk, 2), some_texts()
    freeze(model, added)
    names = {f"transformer.{name}" for name in added} | {"score.weight"}
    assert trainable(model).keys() == names

    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train, dev = (precompute(model, texts, base) for _ in range(2))
    train_to_end(Training.of(model, RECIPE, len(train)), train, dev)
    moved = {n for n, p in model.named_parameters() if not torch.equal(p.detach(), before[n])}
    assert moved == names
    assert frozen_unchanged(model, base.folder / "model.safetensors")


@pytest.mark.parametrize("flags", [LORA, {"adapter": 5}], ids=str)
def test_below_what_is_trained_all_is_computed_once(flags, checkpoint):
    """In the last block only: training begins at block 2, and gives the weights that ids give."""
    base, texts, results = describe("x", checkpoint), some_texts(), []
    for computed_once in (True, False):
        trunk = load_trunk(base.folder, dropout=0.0)
        torch.manual_seed(0)
        added = put_on(trunk, flags | {"in_last": 1})
        model = PartialClassifier(trunk, 2)
        freeze(model, added)
        assert first_trainable(trunk) == 2
        data = precompute(model, texts, base) if computed_once else texts
        train_to_end(Training.of(model, RECIPE, len(data)), data, data)
        results.append([p.detach() for p in trainable(model).values()])
    for once, anew in zip(*results, strict=True):
        torch.testing.assert_close(once, anew, rtol=1e-4, atol=1e-5)


def test_each_method_trains_as_many_parameters_as_its_formula_says():
    def trained(flags):
        model, _ = tuned(flags)
        return count(model)["learning"] - model.score.weight.numel()

    C, L = 24, 3
    assert trained(LORA) == L * 3 * (C + 3 * C)
    assert trained(LORA | {"lora_on": "mlp.c_fc", "in_last": 2}) == 2 * 3 * (C + 4 * C)
    assert trained({"adapter": 5}) == L * 2 * (2 * C * 5 + 5 + C)
    assert trained({"prompt": 4}) == 4 * C
    assert trained({"prefix": 4}) == 2 * L * 4 * C


def test_presets_name_the_tensors_of_their_papers():
    trunk = random_trunk()
    norms = {"h.{}.ln_1.weight", "h.{}.ln_1.bias", "h.{}.ln_2.weight", "h.{}.ln_2.bias"}
    norms = {name.format(i) for name in norms for i in range(3)} | {"ln_f.weight", "ln_f.bias"}
    assert names_to_train(trunk, train_only="norms") == norms
    biases = {name for name, _ in trunk.named_parameters() if name.endswith(".bias")}
    assert names_to_train(trunk, train_only="bitfit") == biases
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


def test_lora_drops_out_while_it_is_trained_and_not_when_it_reads():
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


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("flags", METHODS, ids=str)
@torch.no_grad()
def test_read_in_parts_the_logits_are_those_of_the_plain_classifier(flags, pooling):
    """Where the last MLP reads one token alone, a prompt is still before the texts."""
    model, _ = tuned(flags)
    plain = Classifier(model.transformer, 2, pooling)
    plain.score, model.pooling = model.score, pooling
    texts, _ = some_texts().batch(np.arange(24))
    torch.testing.assert_close(model(*texts), plain(*texts), rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
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
    """As `predict` does it: nothing is trained any more, and the trunk is packed."""
    model, added = tuned(flags)
    model.pooling, texts = pooling, some_texts()
    expected = model(*texts.batch(np.arange(24))[0])
    for names in (added, set()):
        freeze(model, names)
        logits = FrozenPart(model).logits_of(texts)
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("flags", METHODS, ids=str)
def test_gradients_are_those_of_finite_differences(flags):
    """In float64, over every number that was added, along random directions."""
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
    base, tokenizer = describe(str(checkpoint), checkpoint), load_tokenizer(checkpoint)
    trunk = load_trunk(base.folder)
    torch.manual_seed(0)
    model, data = PartialClassifier(trunk, 2), some_texts()
    freeze(model, put_on(trunk, flags))
    train_to_end(Training.of(model, RECIPE, len(data)), data, data)
    plain = {"pool": "last", "dtype": "float32", "append_end": False, "max_length": 50}
    metrics = {
        "weights": {"name": base.name, "sha256": base.sha256},
        "data": {"labels": ["no", "yes"]},
        "recipe": plain | flags,
    }
    save_run(folder := tmp_path / "run", model, metrics)
    freeze(model, set())  # as `load_run` leaves it: nothing is trained any more
    in_memory = Run(model.eval(), tokenizer, ("no", "yes"), plain | flags, base)
    for texts in (["good"], ["a bad one", "", "the good, the bad"] * 9):
        ours, again = (
            run.part.logits_of(run.tokenize(texts)) for run in (in_memory, load_run(str(folder)))
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
    """And as many are trained. Text by text: behind a prompt, the library's model is given no ids
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
