"""What a step cannot do without, counted exactly: the bytes that it moves and its operations.

Weights are read once; keys and values of the tokens in view are read once a row, those of new
tokens written; every weight multiplies each token, the head those that are sampled. Activations
stay in caches. At the device's full bandwidth and rate this takes at least

    floor = max(bytes / bandwidth, operations / rate)

and the greater part is what bounds the step (the roofline, Williams et al. 2009). `Roofline`
predicts steps that have not been; this judges those that have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from penstock.sizing.memory import weight_bytes
from penstock.sizing.precision import Precision
from penstock.sizing.shape import ModelShape


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What devices can do together."""

    bandwidth: float
    """of their memory, bytes/s"""
    rate: float
    """operations/s in the arithmetic of the weights"""


@dataclass(frozen=True, slots=True)
class Work:
    """Of one step, over all ranks."""

    bytes_moved: float
    operations: float

    def floor(self, ceiling: Ceiling) -> tuple[float, str]:
        """(least seconds, `memory` or `compute`)."""
        memory_s = self.bytes_moved / ceiling.bandwidth
        compute_s = self.operations / ceiling.rate
        return max(memory_s, compute_s), "memory" if memory_s >= compute_s else "compute"


class StepWork:
    """Counts the work of steps of one model."""

    def __init__(
        self, shape: ModelShape, precision: Precision, kv_layer_bytes: float | None = None
    ) -> None:
        """kv_layer_bytes: keys and values of a token in one layer, over all ranks; None: as the
        precision says."""
        self._kv_bytes = kv_layer_bytes
        if kv_layer_bytes is None:
            self._kv_bytes = 2 * shape.num_kv_heads * shape.head_dim * precision.value_bytes
        table = precision.table_bytes(shape.vocab_size, shape.hidden_size)
        self._head_bytes = table
        self._row_bytes = table / shape.vocab_size
        expert = 3 * precision.matrix_bytes(shape.mlp_size, shape.hidden_size)
        self._expert_bytes = shape.num_layers * shape.num_experts * expert
        layers = weight_bytes(shape, precision) - shape.num_tables * table
        self._layers_bytes = layers - self._expert_bytes
        self._missed = 1 - shape.experts_per_token / max(1, shape.num_experts)
        self._head_params = shape.vocab_size * shape.hidden_size
        self._layer_params = shape.active_params - self._head_params
        self._pair_operations = 4 * shape.num_heads * shape.head_dim
        self._num_layers = shape.num_layers
        windows = Counter(shape.windows)
        self._full_layers = windows.pop(0, 0)
        self._windows = sorted(windows.items())

    def of(self, starts: Sequence[int], counts: Sequence[int], num_sampled: int) -> Work:
        """The work of a plan (see `core.plan.StepPlan`): row i computes positions starts[i] ..
        starts[i] + counts[i] - 1. Experts that no token is expected to choose are not read."""
        tokens = sum(counts)
        keys, pairs = self._attention(starts, counts, tokens)
        weights = self._layers_bytes + self._expert_bytes * (1 - self._missed**tokens)
        weights += tokens * self._row_bytes + (self._head_bytes if num_sampled else 0.0)
        assert self._kv_bytes is not None
        moved = weights + self._kv_bytes * (keys + self._num_layers * tokens)
        operations = 2 * self._layer_params * tokens + 2 * self._head_params * num_sampled
        return Work(moved, operations + self._pair_operations * pairs)

    def _attention(
        self, starts: Sequence[int], counts: Sequence[int], tokens: int
    ) -> tuple[float, float]:
        """Summed over layers: (keys read, pairs of a query and a key that it sees)."""
        keys = pairs = 0
        if self._full_layers:
            seen = sum(starts) + tokens
            keys = self._full_layers * seen
            if tokens > len(starts):
                rows = zip(starts, counts, strict=True)
                seen = sum(count * start + count * (count + 1) // 2 for start, count in rows)
            pairs = self._full_layers * seen
        for window, layers in self._windows:
            for start, count in zip(starts, counts, strict=True):
                keys += layers * min(start + count, window + count - 1)
                growing = min(max(window - start, 0), count)  # queries that see less than a window
                seen = growing * start + growing * (growing + 1) // 2 + (count - growing) * window
                pairs += layers * seen
        return keys, pairs
