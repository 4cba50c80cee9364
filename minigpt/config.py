"""The shape of a GPT-2, under the names of the official config.json. Knows nothing of tensors."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class GPT2Config:
    """Sizes of a trunk; the defaults are the 124M model. Source: `GPT2Config` of transformers."""

    vocab_size: int = 50257
    n_positions: int = 1024  # the context: the most tokens that can be read at once
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None  # width inside the MLP; None means 4 * n_embd
    layer_norm_epsilon: float = 1e-5
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    resid_pdrop: float = 0.1

    def __post_init__(self):
        """Raise ValueError for sizes that no GPT-2 can have."""
        for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner"):
            size = getattr(self, name)
            if size is None and name == "n_inner":
                continue
            most = 1000 if name == "n_layer" else 2**24  # beyond any GPT-2
            if type(size) is not int or not 0 < size <= most:
                raise ValueError(f"{name} is {size!r}, not a whole number from 1 to {most}")
        for name in ("layer_norm_epsilon", "embd_pdrop", "attn_pdrop", "resid_pdrop"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 <= value < 1:
                raise ValueError(f"{name} is {value!r}, not a number from 0 up to 1")
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd {self.n_embd} is not a multiple of n_head {self.n_head}")

    @property
    def mlp_width(self) -> int:
        return self.n_inner or 4 * self.n_embd

    @classmethod
    def from_json(cls, fields: dict) -> "GPT2Config":
        """Build from the parsed config.json of a GPT-2; raise ValueError for another architecture.

        Fields that do not change what is computed (and there are many in the wild) are ignored;
        fields that do, with a value this code does not implement, are refused.
        """
        if not isinstance(fields, dict) or fields.get("model_type") != "gpt2":
            kind = fields.get("model_type") if isinstance(fields, dict) else None
            raise ValueError(f"model_type is {kind!r}, not 'gpt2'")
        if fields.get("activation_function", "gelu_new") not in ("gelu_new", "gelu_pytorch_tanh"):
            raise ValueError(
                f"activation_function {fields['activation_function']!r}: only tanh GELU is GPT-2's"
            )
        for name, usual in _FIXED.items():
            if fields.get(name, usual) != usual:
                raise ValueError(f"{name} = {fields[name]!r} is a variant that is not GPT-2's")
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in fields.items() if name in known})

    def to_json(self) -> dict:
        """Return the fields of a config.json that transformers opens too."""
        extra = {"model_type": "gpt2", "activation_function": "gelu_new", **_FIXED}
        return extra | dataclasses.asdict(self)


# Variants that later code has grown (cross-attention, Mistral's scaling); GPT-2 has none of them
_FIXED = {
    "add_cross_attention": False,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "tie_word_embeddings": True,
}
