"""From the options of a server, a model's sizes and a device to the engine that is simulated."""

from __future__ import annotations

from penstock.config.engine import EngineConfig
from penstock.core.limits import Limits
from penstock.core.plan import KVGroup
from penstock.errors import ConfigError
from penstock.sim.costs import Costs, RooflineCosts
from penstock.sim.engine import EngineSpec
from penstock.sizing.hardware import Device
from penstock.sizing.memory import block_bytes, plan_memory
from penstock.sizing.precision import Precision
from penstock.sizing.roofline import Roofline
from penstock.sizing.shape import ModelShape

BUDGET = {"cpu": 256, "gpu": 8192}
MIXED = {"cpu": 48, "gpu": None}
"""As the engine chooses for itself."""
BLOCK_SIZE = 16


def engine_spec(
    engine: EngineConfig,
    shape: ModelShape,
    device: Device,
    precision: Precision,
    max_model_len: int | None = None,
    costs: Costs | None = None,
) -> EngineSpec:
    """costs: None takes the roofline. Raises ConfigError when the model does not fit, and for what
    cannot be simulated."""
    tp, pp = engine.tensor_parallel_size, engine.pipeline_parallel_size
    if pp > 1:
        raise ConfigError(
            "--pipeline-parallel-size above 1 cannot be simulated.",
            cure="Simulate tensor parallel ranks, or fewer stages.",
            param="pipeline_parallel_size",
        )
    limits = _limits(engine, shape, device, max_model_len)
    size = engine.block_size or BLOCK_SIZE
    each = block_bytes(shape, precision, size) / tp
    if engine.kv_cache_memory_bytes is not None:
        blocks = int(engine.kv_cache_memory_bytes // each)
    else:
        budget, seqs = limits.max_num_batched_tokens, limits.max_num_seqs
        memory = plan_memory(shape, precision, device, tp, pp, budget, seqs)
        blocks = int(max(0.0, memory.kv_bytes) // each)
    if blocks < 1:
        raise ConfigError(
            f"{shape.name} in {precision.name} leaves no room for a KV cache on {device.name}.",
            cure="Choose a larger device, a smaller precision, or more ranks.",
            param="hardware",
        )
    if costs is None:
        try:
            costs = RooflineCosts(Roofline(shape, precision, device, tp, pp))
        except ValueError as error:
            cause = f"{error}."
            raise ConfigError(cause, cure="Choose another precision.", param="precision") from None
    return EngineSpec(
        limits, blocks, costs, size, engine.enable_prefix_caching, engine, groups_of(shape),
    )  # fmt: skip


def _limits(
    engine: EngineConfig, shape: ModelShape, device: Device, max_model_len: int | None
) -> Limits:
    budget, mixed = engine.max_num_batched_tokens, engine.max_num_mixed_prefill_tokens
    if mixed is None and budget is None:
        mixed = MIXED[device.kind]
    return Limits(
        engine.max_num_seqs,
        budget or max(BUDGET[device.kind], engine.max_num_seqs),
        min(max_model_len or shape.max_positions, shape.max_positions),
        engine.scheduler_depth,
        max_mixed_prefill_tokens=mixed or None,
    )


def groups_of(shape: ModelShape) -> tuple[KVGroup, ...]:
    """Layers of the same window share a block table, as in the engine."""
    layers: dict[int, list[int]] = {}
    for layer, window in enumerate(shape.windows):
        layers.setdefault(window, []).append(layer)
    return tuple(KVGroup(tuple(many), window) for window, many in sorted(layers.items()))
