"""What a replica's memory holds: weights, KV cache, activations, and how many requests fit.

Weights and KV blocks are counted exactly as the engine allocates them; activations are bounded by
the largest step.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.sizing.hardware import Device
from penstock.sizing.precision import Precision
from penstock.sizing.shape import ModelShape

RUNTIME_BYTES = {"gpu": 1.5e9, "cpu": 0.6e9}
"""Libraries, context, workspaces: what a process takes before it holds a model."""
USABLE = {"gpu": 0.95, "cpu": 0.75}
"""Part of a device's memory that one replica may take."""


def weight_bytes(shape: ModelShape, precision: Precision, tp: int = 1, pp: int = 1) -> float:
    """Weights of one rank. Matrices and tables are split over tp, layers over pp; norms are
    repeated."""
    layer = sum(precision.matrix_bytes(m.rows, m.size) * m.copies for m in shape.layer_matrices())
    vectors = shape.layer_vectors() * precision.value_bytes
    tables = shape.num_tables * precision.table_bytes(shape.vocab_size, shape.hidden_size)
    layers = -(-shape.num_layers // pp)
    return layers * (layer / tp + vectors) + tables / tp + shape.hidden_size * precision.value_bytes


def kv_bytes_per_token(shape: ModelShape, precision: Precision, tp: int = 1) -> float:
    """Keys and values of one token in all layers: 2 · layers · KV heads · head_dim · bytes; KV
    heads are repeated where tp is more than their number."""
    heads = max(1, shape.num_kv_heads // tp)
    return 2 * shape.num_layers * heads * shape.head_dim * precision.value_bytes


def block_bytes(shape: ModelShape, precision: Precision, block_size: int) -> int:
    """Bytes of a KV block: as the engine's pool, which serves all groups of layers from blocks of
    the largest group's size."""
    sizes = [shape.windows.count(window) for window in set(shape.windows)]
    per_layer = 2 * block_size * shape.num_kv_heads * shape.head_dim * precision.value_bytes
    return max(sizes) * per_layer


def activation_bytes(
    shape: ModelShape, precision: Precision, max_tokens: int, max_seqs: int, tp: int = 1
) -> float:
    """Largest intermediate results of a step of `max_tokens` with `max_seqs` rows of logits:
    residual, normed input, gate and up with their product, float32 logits and a sampler's copy."""
    wide = 3 * shape.mlp_size * max(1, shape.experts_per_token) / tp
    tokens = max_tokens * (2 * shape.hidden_size + wide) * precision.value_bytes
    return tokens + 2 * max_seqs * shape.vocab_size * 4


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes of one rank; tokens and requests of the whole replica."""

    device_bytes: float
    weights_bytes: float
    activations_bytes: float
    runtime_bytes: float
    kv_bytes: float
    """what is left for the cache; negative when even the weights do not fit"""
    kv_tokens: int
    """tokens that the cache holds"""

    @property
    def fits(self) -> bool:
        return self.kv_tokens > 0

    @property
    def missing_bytes(self) -> float:
        """What a rank lacks."""
        return max(0.0, -self.kv_bytes)


def plan_memory(
    shape: ModelShape,
    precision: Precision,
    device: Device,
    tp: int,
    pp: int,
    max_tokens: int,
    max_seqs: int,
) -> MemoryPlan:
    """What fits on each of the tp · pp devices of a replica."""
    usable = device.memory_bytes * USABLE[device.kind]
    weights = weight_bytes(shape, precision, tp, pp)
    activations = activation_bytes(shape, precision, max_tokens, max_seqs, tp)
    runtime = RUNTIME_BYTES[device.kind]
    left = usable - weights - activations - runtime
    per_token = kv_bytes_per_token(shape, precision, tp) / pp
    tokens = max(0, int(left // per_token))
    return MemoryPlan(device.memory_bytes, weights, activations, runtime, left, tokens)
