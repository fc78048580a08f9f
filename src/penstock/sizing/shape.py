"""What a transformer costs: its sizes, from the text of a Hugging Face config.json.

Only sizes are read. Whether this version of Penstock can run the architecture is for `models` to
say; a plan may be about a model that it cannot.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from penstock.errors import CheckpointError

SLIDING = "sliding_attention"
FULL_EVERY = {"gemma2": 2, "gemma3_text": 6}
"""model_type -> every which layer has full attention, where the file does not list them"""


class MatrixSize(NamedTuple):
    """`copies` weight matrices of [rows, size]; only `active` of them work on one token."""

    rows: int
    size: int
    copies: int = 1
    active: float = 1.0


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes in elements. `windows` has one entry a layer: 0 full attention, else its width."""

    name: str
    vocab_size: int
    hidden_size: int
    mlp_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    windows: tuple[int, ...]
    max_positions: int
    tied: bool
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    num_experts: int = 0
    """0: a dense MLP"""
    experts_per_token: int = 0
    shared_experts: int = 0
    """experts that every token passes"""

    @property
    def num_layers(self) -> int:
        return len(self.windows)

    def layer_matrices(self) -> Iterator[MatrixSize]:
        """The matrices of one layer: q, k, v, o; gate, up and down of the MLP or of each expert."""
        hidden, dim = self.hidden_size, self.head_dim
        yield MatrixSize(self.num_heads * dim, hidden)
        yield MatrixSize(self.num_kv_heads * dim, hidden, 2, 2.0)
        yield MatrixSize(hidden, self.num_heads * dim)
        if not self.num_experts:
            yield MatrixSize(self.mlp_size, hidden, 2, 2.0)
            yield MatrixSize(hidden, self.mlp_size)
            return
        total = self.num_experts + self.shared_experts
        active = float(self.experts_per_token + self.shared_experts)
        yield MatrixSize(self.num_experts, hidden)
        yield MatrixSize(self.mlp_size, hidden, 2 * total, 2 * active)
        yield MatrixSize(hidden, self.mlp_size, total, active)

    def layer_vectors(self) -> int:
        """Elements of a layer's norms and biases; the engine keeps norms of queries and keys by
        head."""
        heads, kv = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        count = 2 * self.hidden_size + (heads + kv if self.qk_norm else 0)
        count += heads + 2 * kv if self.qkv_bias else 0
        count += self.hidden_size if self.out_bias else 0
        return count + (2 * self.mlp_size + self.hidden_size if self.mlp_bias else 0)

    @property
    def num_tables(self) -> int:
        """Embedding and head: one table where they are tied."""
        return 1 if self.tied else 2

    @property
    def num_params(self) -> int:
        layer = sum(m.rows * m.size * m.copies for m in self.layer_matrices())
        tables = self.num_tables * self.vocab_size * self.hidden_size
        return tables + self.num_layers * (layer + self.layer_vectors()) + self.hidden_size

    @property
    def active_params(self) -> float:
        """Weights that multiply one token, the head included, a mere look-up not."""
        layer = sum(m.rows * m.size * m.active for m in self.layer_matrices())
        return self.num_layers * layer + self.vocab_size * self.hidden_size

    def kv_tokens(self, length: int) -> int:
        """Tokens times layers whose keys and values a sequence of that length keeps."""
        return sum(min(length, window) if window else length for window in self.windows)


def read_shape(text: str, name: str = "config.json") -> ModelShape:
    """The shape that a config.json describes. Raises CheckpointError naming file and field."""
    try:
        raw = json.loads(text)
    except json.JSONDecodeError as error:
        cause = f"{name}:{error.lineno}: not JSON: {error.msg}."
        raise CheckpointError(cause, cure="Give the model's config.json.") from None
    if not isinstance(raw, dict):
        raise CheckpointError(f"{name}: no object.", cure="Give the model's config.json.")
    raw = raw.get("text_config", raw)
    sizes = _Sizes(raw, name)
    hidden, heads = sizes.of("hidden_size"), sizes.of("num_attention_heads")
    kind = str(raw.get("model_type", ""))
    experts = sizes.of("num_experts", "num_local_experts", default=0)
    mlp = sizes.of("intermediate_size")
    qkv_bias = bool(raw.get("attention_bias", kind == "qwen2"))
    return ModelShape(
        name=str(raw.get("_name_or_path") or kind or name),
        vocab_size=sizes.of("vocab_size"),
        hidden_size=hidden,
        mlp_size=sizes.of("moe_intermediate_size", default=mlp) if experts else mlp,
        num_heads=heads,
        num_kv_heads=sizes.of("num_key_value_heads", default=heads),
        head_dim=sizes.of("head_dim", default=128 if kind == "qwen3" else max(1, hidden // heads)),
        windows=_windows(raw, sizes, kind),
        max_positions=_max_positions(raw, sizes),
        tied=bool(raw.get("tie_word_embeddings", kind.startswith("gemma"))),
        qkv_bias=qkv_bias,
        out_bias=qkv_bias and kind != "qwen2",
        mlp_bias=bool(raw.get("mlp_bias", False)),
        qk_norm=kind in ("qwen3", "qwen3_moe", "gemma3_text", "olmo2"),
        num_experts=experts,
        experts_per_token=sizes.of("num_experts_per_tok", default=0) if experts else 0,
        shared_experts=sizes.of("n_shared_experts", default=0) if experts else 0,
    )


def _max_positions(raw: Mapping[str, Any], sizes: _Sizes) -> int:
    """linear and yarn scaling reach factor times the original context, even where the file still
    states the original."""
    stated = sizes.of("max_position_embeddings")
    scaling = raw.get("rope_scaling") or raw.get("rope_parameters") or {}
    scaling = scaling.get("full_attention", scaling)
    kind = scaling.get("rope_type") or scaling.get("type")
    factor = float(scaling.get("factor") or 1.0)
    original = int(
        scaling.get("original_max_position_embeddings")
        or raw.get("original_max_position_embeddings")
        or stated
    )
    if kind == "linear":
        return int(stated * factor)
    return max(stated, int(original * factor)) if kind == "yarn" else stated


class _Sizes:
    def __init__(self, raw: Mapping[str, Any], name: str) -> None:
        self._raw, self._name = raw, name

    def of(self, *names: str, default: int | None = None) -> int:
        """The first of these fields that is there. Raises CheckpointError."""
        for field in names:
            value = self._raw.get(field)
            if value is not None:
                if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                    cause = f"{self._name}: {field} is {value!r}, not a size."
                    raise CheckpointError(cause, param=field)
                return value
        if default is None:
            cause = f"{self._name}: {names[0]} is missing."
            cure = "Give a language model's config.json."
            raise CheckpointError(cause, cure=cure, param=names[0])
        return default


def _windows(raw: Mapping[str, Any], sizes: _Sizes, kind: str) -> tuple[int, ...]:
    layers = sizes.of("num_hidden_layers")
    width = sizes.of("sliding_window", default=4096 if "sliding_window" not in raw else 0)
    if kind in ("mistral", "mixtral", "phi3"):
        stated = kind == "mistral" or "sliding_window" in raw
        whole = kind == "phi3" and width >= sizes.of("max_position_embeddings")
        return (width if stated and not whole else 0,) * layers
    if isinstance(raw.get("layer_types"), list):
        return tuple(width if t == SLIDING else 0 for t in raw["layer_types"])
    if kind in FULL_EVERY:
        every = sizes.of("sliding_window_pattern", default=FULL_EVERY[kind])
        return tuple(width if i % every else 0 for i in range(1, layers + 1))
    if not raw.get("use_sliding_window", False):
        return (0,) * layers
    first = sizes.of("max_window_layers", default=28)
    return tuple(width if i >= first else 0 for i in range(layers))
