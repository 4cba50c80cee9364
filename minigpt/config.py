"""The sizes of a GPT-2, under the names of the official config.json. Knows nothing of tensors."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class GPT2Config:
    """Sizes of a trunk; the defaults are the 124M model. Source: `GPT2Config` of transformers."""

    vocab_size: int = 50257
    n_positions: int = 1024  # the context: the most tokens that can be read at once
    n_embd: int = 768  # channels of a hidden state
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None  # width inside the MLP; None means 4 * n_embd
    layer_norm_epsilon: float = 1e-5
    embd_pdrop: float = 0.1  # dropout while training: of the embeddings,
    attn_pdrop: float = 0.1  # of the attention weights,
    resid_pdrop: float = 0.1  # and of what attention and MLP add to the residual stream

    @property
    def mlp_width(self) -> int:
        return self.n_inner or 4 * self.n_embd

    @classmethod
    def from_json(cls, fields: dict) -> "GPT2Config":
        """Take the sizes from a parsed config.json.

        Such a file has many other fields. `minigpt.checkpoints` refuses a file in which those that
        would change what is computed are not GPT-2's.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in fields.items() if name in names})

    def to_json(self) -> dict:
        """Return the fields of a config.json that transformers opens too."""
        fields = {"model_type": "gpt2", "activation_function": "gelu_new"}  # the tanh form of GELU
        return fields | dataclasses.asdict(self)
