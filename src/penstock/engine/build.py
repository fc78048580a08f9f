"""From a config to an engine that is ready to run, with what was decided and why."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from penstock.attention.base import AttentionBackend
from penstock.config import Config
from penstock.core.blocks import BlockPool
from penstock.core.clock import Clock
from penstock.core.plan import UNKNOWN, BlockDelta, Entry, KVGroup, StepPlan
from penstock.core.policy import make_policy
from penstock.core.request import Sampling
from penstock.core.scheduler import Limits, Scheduler
from penstock.engine.activity import Activity
from penstock.engine.client import ModelInfo
from penstock.engine.engine import Engine, Publish
from penstock.engine.executor import InlineExecutor, ThreadExecutor
from penstock.engine.hub import model_folder
from penstock.engine.kv import allocate_caches, block_bytes, choose_num_blocks
from penstock.engine.load import choose_device, load
from penstock.engine.runner import ModelRunner
from penstock.engine.weights import read_config
from penstock.errors import CheckpointError, ConfigError, EngineError
from penstock.models.base import CausalLM

CPU_BUDGET = 256
GPU_BUDGET = 8192


@dataclass(slots=True)
class Stages:
    """Seconds of each stage of a start, in order."""

    activity: Activity
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        self.activity.begin(name)
        began = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - began


@dataclass(frozen=True, slots=True)
class Fit:
    """What the memory allows."""

    block_size: int
    num_blocks: int
    max_model_len: int
    kv_cache_bytes: int


def build_engine(
    config: Config,
    clock: Clock,
    publish: Publish,
    activity: Activity | None = None,
    index: int = 0,
) -> tuple[Engine, ModelInfo]:
    """Load the model, fit the cache, warm up. Raises ConfigError, CheckpointError, …

    activity: told what the start, and then the engine, does. index: of this engine among
    --data-parallel-size; with --device auto each takes a GPU of its own as far as there are some.
    """
    activity = activity or Activity()
    stages = Stages(activity)
    device = choose_device(config, index)
    if config.engine.num_threads is not None:
        torch.set_num_threads(config.engine.num_threads)
    with stages.time("find checkpoint"):
        folder = model_folder(config)
        raw = read_config(folder)
    with stages.time("load weights"):
        loaded = load(config, folder, raw, device)
        stages.notes += loaded.notes
    backend, dtype = loaded.backend, loaded.dtype
    fit = _fit(config, loaded.model, backend, dtype, device, stages)
    limits = _limits(config, fit.max_model_len, device)
    with stages.time("prepare weights"):
        model = loaded.ready(
            limits.max_num_batched_tokens,
            limits.max_num_seqs,
            limits.max_model_len,
            config.engine.num_threads,
        )
    with stages.time("allocate cache"):
        heads = (model.num_kv_heads, model.head_dim)
        shape = (model.kv_groups, fit.num_blocks, fit.block_size, *heads)
        caches = allocate_caches(backend, *shape, dtype, device)
    runner = ModelRunner(
        model, caches, fit.block_size, limits.max_num_seqs, limits.max_model_len, device
    )
    with stages.time("warm up"):
        warm_up(runner, fit.block_size)
    cache_key = f"{folder}:{dtype}:{loaded.format.name}"
    scheduler = _scheduler(config, limits, fit, model.kv_groups, clock, cache_key)
    executor = ThreadExecutor(runner.run) if limits.depth > 1 else InlineExecutor(runner.run)
    info = _info(model.vocab_size, limits, fit, loaded.dtype, device, stages)
    info.architecture, info.eos_ids = str(raw["architectures"][0]), eos_ids(folder, raw)
    info.cache_key = cache_key
    return Engine(scheduler, executor, clock, publish, activity), info


def _scheduler(
    config: Config,
    limits: Limits,
    fit: Fit,
    groups: tuple[KVGroup, ...],
    clock: Clock,
    cache_key: str,
) -> Scheduler:
    engine = config.engine
    pool = BlockPool(fit.num_blocks, fit.block_size, engine.enable_prefix_caching)
    if engine.data_parallel_size > 1:
        # The router is told of a group with full attention, for that keeps whole prefixes.
        pool.watch(next((g for g, group in enumerate(groups) if not group.window), 0))
    policy = make_policy(engine.scheduling_policy, engine.priority_ageing_s)
    return Scheduler(limits, pool, groups, policy, clock, cache_key)


def _info(
    vocab_size: int,
    limits: Limits,
    fit: Fit,
    dtype: torch.dtype,
    device: torch.device,
    stages: Stages,
) -> ModelInfo:
    return ModelInfo(
        vocab_size=vocab_size,
        max_model_len=limits.max_model_len,
        eos_ids=(),
        block_size=fit.block_size,
        num_blocks=fit.num_blocks,
        max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=limits.max_num_batched_tokens,
        dtype=str(dtype).removeprefix("torch."),
        device=str(device),
        architecture="",
        kv_cache_bytes=fit.kv_cache_bytes,
        notes=stages.notes,
        stages_s=stages.seconds,
    )


def _limits(config: Config, max_model_len: int, device: torch.device) -> Limits:
    engine = config.engine
    budget = engine.max_num_batched_tokens
    if budget is None:
        budget = max(CPU_BUDGET if device.type == "cpu" else GPU_BUDGET, engine.max_num_seqs)
    return Limits(engine.max_num_seqs, budget, max_model_len, engine.scheduler_depth)


def _fit(
    config: Config,
    model: CausalLM,
    backend: AttentionBackend,
    dtype: torch.dtype,
    device: torch.device,
    stages: Stages,
) -> Fit:
    """Block size, number of blocks and context. Raises ConfigError when they contradict."""
    size = config.engine.block_size or backend.block_sizes[0]
    if size not in backend.block_sizes:
        known = ", ".join(map(str, backend.block_sizes))
        raise ConfigError(
            f"--block-size {size} is not one of the attention backend's.",
            cure=f"Use one of {known}.",
            param="block_size",
        )
    wanted = config.model.max_model_len
    context = wanted or model.max_positions
    if context > model.max_positions:
        raise ConfigError(
            f"--max-model-len is {context}, but the model is made for {model.max_positions}.",
            cure="Give a smaller number, or leave the flag away.",
            param="max_model_len",
        )
    groups = model.kv_groups
    each = block_bytes(groups, size, model.num_kv_heads, model.head_dim, dtype)
    per_request = -(-context // size) * len(groups)
    most = per_request * config.engine.max_num_seqs
    sharers = config.engine.data_parallel_size
    if device.type == "cuda" and config.engine.device == "auto":
        sharers = -(-sharers // torch.cuda.device_count())
    wanted_bytes = config.engine.kv_cache_memory_bytes
    blocks, why = choose_num_blocks(wanted_bytes, each, most, device, sharers)
    stages.notes.append(f"KV cache of {blocks} blocks ({blocks * each / 2**20:.0f} MiB): {why}")
    room = blocks // len(groups) * size
    if room < context:
        if wanted is not None:
            raise ConfigError(
                f"--max-model-len is {context}, but the KV cache holds {room} tokens.",
                cure="Raise --kv-cache-memory-bytes or lower --max-model-len.",
                param="max_model_len",
            )
        stages.notes.append(f"context lowered from {context} to {room}: the cache holds no more")
        context = room
    return Fit(size, blocks, context, blocks * each)


def warm_up(runner: ModelRunner, block_size: int) -> None:
    """One small prefill and one decode in slot 0, so that the first request finds libraries
    loaded. Block 0 is overwritten by whoever gets it first. Raises EngineError."""
    sampling = Sampling(temperature=1.0, max_tokens=2)
    plan = StepPlan(
        step=0,
        entries=[Entry(0, "warm-up", [0, 0], 2, sampling)],
        slots=[0],
        starts=[0],
        counts=[2],
        tokens=[0],
        samples=[True],
        blocks=[BlockDelta(0, group, 0, [0]) for group in range(runner.num_groups)],
    )
    runs = [plan]
    if block_size > 2:
        runs.append(StepPlan(1, [], [0], [2], [1], [UNKNOWN], [True]))
    for item in runs:
        error = runner.run(item).error
        if error is not None:
            raise EngineError(str(error["message"]))


def eos_ids(folder: Path, raw: dict[str, Any]) -> tuple[int, ...]:
    """End ids of generation_config.json, or else of config.json."""
    found = raw.get("eos_token_id")
    try:
        generation = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
        found = generation.get("eos_token_id", found)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder / 'generation_config.json'} cannot be read: {error}.",
            cure="Download the checkpoint again.",
        ) from error
    if found is None:
        return ()
    return tuple(found) if isinstance(found, list) else (int(found),)
