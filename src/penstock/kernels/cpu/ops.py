"""What the ops of a program are told: caches, rotations, batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from penstock.kernels.cpu.memory import ARENA


class Epilogue(IntEnum):
    """What a linear op does with its result. The values are those of types.h."""

    STORE = 0
    ADD = 1
    """out += result"""
    SILU_MUL = 2
    """out = SiLU(gate) * up, for weights from `pack.interleave`"""
    GELU_MUL = 3
    """out = GELU(gate) * up, by the approximation with tanh"""


GATED = {
    "silu": Epilogue.SILU_MUL,
    "swish": Epilogue.SILU_MUL,
    "gelu_new": Epilogue.GELU_MUL,
    "gelu_pytorch_tanh": Epilogue.GELU_MUL,
}
"""`hidden_act` of config.json -> the epilogue of gate and up"""


@dataclass(frozen=True, slots=True)
class KVCache:
    """Keys and values of one layer; see cache.h for the layout."""

    data: Tensor
    """[num_blocks, ...], contiguous, of `block_bytes` a block"""
    dtype: torch.dtype
    """float32, bfloat16, or int8 with a float32 scale for each token and head"""
    block_size: int
    num_kv_heads: int
    head_dim: int

    @staticmethod
    def block_bytes(dtype: torch.dtype, block_size: int, num_kv_heads: int, head_dim: int) -> int:
        """Bytes of one block."""
        scales = 4 if dtype == torch.int8 else 0
        return 2 * block_size * num_kv_heads * (head_dim * dtype.itemsize + scales)

    @staticmethod
    def allocate(
        num_blocks: int, dtype: torch.dtype, block_size: int, num_kv_heads: int, head_dim: int
    ) -> KVCache:
        """Zeros. block_size and head_dim are multiples of 16, head_dim at most 256."""
        size = KVCache.block_bytes(dtype, block_size, num_kv_heads, head_dim)
        data = ARENA.zeros((num_blocks, size), torch.uint8)
        return KVCache(data, dtype, block_size, num_kv_heads, head_dim)


@dataclass(frozen=True, slots=True)
class Rope:
    """The rotation of a layer, and the norms of queries and keys before it."""

    cos: Tensor | None = None
    """float32 [positions, rotary_dim / 2]; None: no rotation"""
    sin: Tensor | None = None
    q_norm: Tensor | None = None
    """float32 [head_dim]; None: no norm"""
    k_norm: Tensor | None = None
    norm_eps: float = 0.0


@dataclass(frozen=True, slots=True)
class Routing:
    """Which experts a run's tokens go to: pairs (token, choice), sorted by expert."""

    weights: Tensor
    """float32 [tokens, top_k], by falling probability"""
    places: Tensor
    """int32 [tokens, top_k]: where a pair lies among all"""
    tokens: Tensor
    """int64 [pairs]: whose pair it is"""
    starts: Tensor
    """int32 [experts + 1]: the first pair of each expert"""
    normalised: bool
    """the weights of a token sum to 1; else they are probabilities among all experts"""

    @property
    def top_k(self) -> int:
        return self.weights.shape[1]

    @staticmethod
    def allocate(max_tokens: int, experts: int, top_k: int, normalised: bool) -> Routing:
        """Room for the largest run."""
        return Routing(
            torch.empty(max_tokens, top_k),
            torch.empty(max_tokens, top_k, dtype=torch.int32),
            torch.empty(max_tokens * top_k, dtype=torch.int64),
            torch.empty(experts + 1, dtype=torch.int32),
            normalised,
        )


@dataclass(frozen=True, slots=True)
class GroupTables:
    """Where one KV group keeps the keys and values of a run's rows."""

    block_tables: Tensor
    """int32 [rows, width]"""
    slots: Tensor
    """int64 [tokens]: block * block_size + offset"""


@dataclass(frozen=True, slots=True)
class Filters:
    """Parameters of the draw, each a tensor of one entry a row; see engine/draw.py."""

    inverse_temperature: Tensor
    """float64; 0: greedy"""
    top_k: Tensor
    """int64; 0 keeps all"""
    top_p: Tensor
    """float64"""
    min_p: Tensor
    """float64"""
    uniform: Tensor
    """float64 in [0, 1)"""


@dataclass(frozen=True, slots=True)
class Batch:
    """The tokens of one run. Row r owns tokens query_start[r] .. query_start[r + 1] - 1, the last
    of its seq_lens[r] keys."""

    ids: Tensor
    """int64 [tokens]"""
    positions: Tensor
    """int64 [tokens]"""
    query_start: Tensor
    """int32 [rows + 1]"""
    seq_lens: Tensor
    """int32 [rows]"""
    wanted: Tensor
    """int64: the tokens that ops of wanted rows read"""
    groups: Sequence[GroupTables] = ()
