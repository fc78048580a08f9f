"""Seconds of a step from its bytes and operations, with the bound named (Williams et al. 2009).

A step computes some tokens of prefill and one token for each running request. Its time is the
longest of arithmetic and memory traffic, plus collectives, plus what every step costs.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from penstock.sizing.hardware import Device
from penstock.sizing.memory import kv_bytes_per_token, weight_bytes
from penstock.sizing.precision import Precision
from penstock.sizing.shape import ModelShape


@dataclass(frozen=True, slots=True)
class StepCost:
    """One step of one replica. Operations and bytes are those of one rank."""

    operations: float
    bytes_read: float
    network_bytes: float
    compute_s: float
    memory_s: float
    network_s: float
    fixed_s: float

    @property
    def seconds(self) -> float:
        return max(self.compute_s, self.memory_s) + self.network_s + self.fixed_s

    @property
    def bound(self) -> str:
        """compute, memory, network, or overhead: what takes the most time."""
        parts = {
            "compute": self.compute_s,
            "memory": self.memory_s,
            "network": self.network_s,
            "overhead": self.fixed_s,
        }
        return max(parts, key=lambda name: parts[name])

    @property
    def intensity(self) -> float:
        """Operations per byte, to be compared with the device's ridge point."""
        return self.operations / self.bytes_read


class Roofline:
    """Step times of a model on a device. Raises ValueError for arithmetic the device lacks."""

    def __init__(
        self, shape: ModelShape, precision: Precision, device: Device, tp: int = 1, pp: int = 1
    ) -> None:
        rate = device.rates.of(precision.arithmetic)
        if rate is None:
            raise ValueError(f"{device.name} has no {precision.arithmetic} arithmetic")
        self.shape, self.precision, self.device, self.tp, self.pp = shape, precision, device, tp, pp
        self._rate = rate * device.compute_share
        self._bandwidth = device.bandwidth * device.bandwidth_share
        self._weights = weight_bytes(shape, precision, tp)
        self._kv_bytes = kv_bytes_per_token(shape, precision, tp)
        self._active = shape.active_params
        self._layers_params = self._active - shape.vocab_size * shape.hidden_size
        self._read_share = self._read_shares()
        self._full_layers = shape.windows.count(0)
        self._windows = Counter(window for window in shape.windows if window)

    def _read_shares(self) -> tuple[float, float]:
        """(share of the weights that any step reads, share that are experts)."""
        shape = self.shape
        if not shape.num_experts:
            lookup = 0.0 if shape.tied else self._table_bytes() / self.tp
            return 1 - lookup / self._weights, 0.0
        one = 3 * self.precision.matrix_bytes(shape.mlp_size, shape.hidden_size)
        experts = shape.num_layers * shape.num_experts * one / self.tp
        return 1 - experts / self._weights, experts / self._weights

    def _table_bytes(self) -> float:
        return self.precision.table_bytes(self.shape.vocab_size, self.shape.hidden_size)

    def step(
        self,
        prefill_tokens: float = 0.0,
        prefill_context: float = 0.0,
        decode_rows: float = 0.0,
        decode_context: float = 0.0,
    ) -> StepCost:
        """prefill_tokens: of prompts, together; prefill_context: mean tokens that stand before
        each of them; decode_context: mean length of the running requests."""
        shape, tp = self.shape, self.tp
        tokens = prefill_tokens + decode_rows
        attended = prefill_tokens * self._attended(prefill_context)
        attended += decode_rows * self._attended(decode_context)
        operations = 2 * self._layers_params * tokens
        operations += 2 * shape.vocab_size * shape.hidden_size * (decode_rows + 1)
        operations += 4 * shape.num_heads * shape.head_dim * attended
        operations /= tp
        per_layer = self._kv_bytes / shape.num_layers
        kv_read = decode_rows * self._attended(decode_context)
        kv_read += self._attended(prefill_context) if prefill_tokens else 0.0
        moved = tokens * (4 * shape.hidden_size + 3 * shape.mlp_size / tp)
        traffic = (
            self._weights_read(tokens)
            + per_layer * (kv_read + tokens * shape.num_layers)
            + moved * shape.num_layers * self.precision.value_bytes * 0.5
        )
        return self._cost(operations, traffic, tokens)

    def _cost(self, operations: float, traffic: float, tokens: float) -> StepCost:
        shape, device = self.shape, self.device
        each = tokens * shape.hidden_size * self.precision.value_bytes
        ring = 2 * (self.tp - 1) / self.tp
        network = 2 * shape.num_layers * each * ring + (self.pp - 1) * each
        wait = network / device.link if network else 0.0
        return StepCost(
            operations,
            traffic,
            network,
            operations / self._rate,
            traffic / self._bandwidth,
            wait,
            device.step_s * self.pp,
        )

    def _attended(self, context: float) -> float:
        """Layers times positions that a token looks at."""
        whole = self._full_layers * context
        return whole + sum(min(context, w) * layers for w, layers in self._windows.items())

    def _weights_read(self, tokens: float) -> float:
        """Experts that no token chose are not read: each is missed with (1 - k/E)^tokens."""
        always, experts = self._read_share
        shape = self.shape
        chosen = 0.0
        if experts:
            missed = 1 - shape.experts_per_token / shape.num_experts
            chosen = 1 - missed**tokens
        return self._weights * (always + experts * chosen)

    def prefill(self, tokens: int, cached: int = 0) -> StepCost:
        """One prompt of `tokens` new tokens after `cached` known ones."""
        return self.step(prefill_tokens=tokens, prefill_context=cached + tokens / 2)

    def decode(self, rows: int, context: int) -> StepCost:
        """One token for each of `rows` requests of that length."""
        return self.step(decode_rows=rows, decode_context=context)
