"""From a config to an engine that is ready to run, with what was decided and why."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from penstock.config import Config
from penstock.core.blocks import BlockPool
from penstock.core.clock import Clock
from penstock.core.limits import Limits
from penstock.core.plan import UNKNOWN, AdapterLoad, BlockDelta, Entry, Executor, KVGroup, StepPlan
from penstock.core.request import Sampling
from penstock.core.scheduler import Scheduler
from penstock.core.slo_scheduler import make_scheduler
from penstock.engine.activity import Activity
from penstock.engine.adapters import AdapterStore
from penstock.engine.client import AdapterRoom, ModelInfo
from penstock.engine.constraints import Constraints
from penstock.engine.engine import ClosableExecutor, Engine, Publish
from penstock.engine.executor import GroupExecutor, InlineExecutor, ThreadExecutor
from penstock.engine.frames import Room, Word
from penstock.engine.grammars import Grammars
from penstock.engine.hub import model_folder
from penstock.engine.judge import Judge, ceiling, find_device, step_work
from penstock.engine.kv import allocate_caches, available_bytes, block_bytes, choose_num_blocks
from penstock.engine.load import NATIVE, choose_device, load
from penstock.engine.runner import ModelRunner
from penstock.engine.weights import read_config
from penstock.engine.workers import Workers
from penstock.errors import CheckpointError, ConfigError, EngineError, UnsupportedError
from penstock.grammar.compiled import Vocabulary
from penstock.grammar.vocabulary import tokenizer_json
from penstock.kernels import cpu
from penstock.kernels.cpu.program import pool
from penstock.layers.decoder import Decoder
from penstock.layers.native import NativeDecoder
from penstock.parallel.context import least_row
from penstock.parallel.ranks import ALONE, RankGroup
from penstock.parallel.stages import Stage

CPU_BUDGET = 256
CPU_MIXED_PREFILL = 48
"""Arithmetic of a CPU catches up with its memory after some tens of rows: a step of 8 decodes and
48 prompt tokens takes 4 times one of the decodes alone (docs/log.md), 256 tokens take 15 times."""
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

    def rename(self, old: str, new: str) -> None:
        """Say more about the latest stage."""
        self.seconds[new] = self.seconds.pop(old)


class Part:
    """What one rank has and does; all of it when it is alone."""

    def __init__(
        self, config: Config, ranks: RankGroup, index: int, activity: Activity | None = None
    ) -> None:
        """Read its weights. index: of the engine. Raises ConfigError, CheckpointError, …"""
        self.stages = Stages(activity or Activity())
        self.ranks = ranks
        self.device = choose_device(config, index, ranks.number)
        self.threads = _threads(config)
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        with self.stages.time("find checkpoint"):
            self.folder = model_folder(config)
            self.raw = read_config(self.folder)
        with self.stages.time("load weights"):
            self.loaded = load(config, self.folder, self.raw, self.device, ranks)
        if self.loaded.kept.note:
            found = self.loaded.kept.found
            self.stages.rename("load weights", f"load weights (cache {found})")
        self.adapters = self._make_room(config)

    def _make_room(self, config: Config) -> AdapterStore | None:
        """For adapters, where some are wanted. Raises UnsupportedError."""
        self.adapter_slots, rank = config.model.adapter_slots, config.model.max_lora_rank
        if not self.adapter_slots:
            return None
        model = self.loaded.model
        if not isinstance(model, Decoder):
            raise UnsupportedError(
                "Adapters are not supported for a model computed by transformers' code.",
                cure="Leave --lora-modules, --max-loras and --allow-runtime-lora-updating away.",
                param="lora_modules",
            )
        model.adapt(self.adapter_slots, rank)
        plan = model.plan
        self.adapter_room = AdapterRoom(self.adapter_slots, rank, len(plan.windows), plan.adaptable)
        return AdapterStore(rank)

    def word(self) -> Word:
        """What the leader wants to know."""
        model = self.loaded.model
        shape = (model.num_kv_heads, model.head_dim, self.loaded.kv_dtype)
        token_bytes = block_bytes(model.kv_groups, 1, *shape)
        return Word("loaded", self.loaded.weight_bytes, token_bytes, available_bytes(self.device))

    def runner(self, room: Room, constraints: Constraints | None = None) -> ModelRunner:
        """Pack the weights for this machine and allocate the cache."""
        rows, longest = room.max_num_seqs, room.max_model_len
        with self.stages.time("prepare weights"):
            model = self.loaded.ready(room.max_num_batched_tokens, rows, longest, self.threads)
        if self.loaded.kept.note:
            self.stages.notes.append(self.loaded.kept.outcome())
        with self.stages.time("allocate cache"):
            caches = allocate_caches(
                self.loaded.backend,
                model.kv_groups,
                room.num_blocks,
                room.block_size,
                model.num_kv_heads,
                model.head_dim,
                self.loaded.kv_dtype,
                self.device,
            )
        store = self.adapters
        put: Callable[[AdapterLoad], None] | None = None
        if store is not None:
            assert isinstance(model, Decoder | NativeDecoder)
            take = model.set_adapter
            put = lambda load: take(load.slot, store.get(load.adapter))  # noqa: E731
        sizes = (room.block_size, rows, longest)
        slots = self.adapter_slots
        workers = pool(self.threads) if self.loaded.backend.name == NATIVE else None  # the model's
        return ModelRunner(
            model, caches, *sizes, self.device, self.ranks, put, slots, workers, constraints
        )


def build_engine(
    config: Config,
    clock: Clock,
    publish: Publish,
    activity: Activity | None = None,
    index: int = 0,
) -> tuple[Engine, ModelInfo]:
    """Load the model, fit the cache, warm up. Raises ConfigError, CheckpointError, …

    activity: told what the start, and then the engine, does. index: of this engine among
    --data-parallel-size; with --device auto each takes GPUs of its own as far as there are some.
    """
    activity = activity or Activity()
    workers = None
    if config.engine.processes > 1:
        folder = model_folder(config)  # found once, not by every process
        found = replace(config.model, model=str(folder), revision=None)
        config = replace(config, model=found)
        check_split(config)
        workers = Workers(config, index)
    try:
        ranks = workers.seat.ranks() if workers is not None else ALONE
        part = Part(config, ranks, index, activity)
        grammars = _grammars(config, part.loaded.model.vocab_size)
        judge = _judge(config, part)
        scheduler, executor, info = _build(config, clock, part, workers, grammars)
    except BaseException:
        if workers is not None:
            workers.close()
        raise
    prepare = None if part.adapters is None else part.adapters.prepare
    return Engine(scheduler, executor, clock, publish, activity, prepare, grammars, judge), info


def _judge(config: Config, part: Part) -> Judge:
    """What holds steps against the hardware. Raises ConfigError for an unknown one."""
    loaded, model, engine = part.loaded, part.loaded.model, config.engine
    layers = max(len(group.layers) for group in model.kv_groups)
    layer_bytes = part.word().token_bytes / layers * engine.tensor_parallel_size
    work = step_work(part.raw, loaded.format.name, loaded.dtype, layer_bytes)
    with part.stages.time("find hardware"):
        device, note = find_device(engine.roofline_hardware, part.device, engine.processes)
    part.stages.notes.append(note)
    return Judge(work, ceiling(device, loaded.format.name, loaded.dtype, engine.processes))


def check_split(config: Config) -> None:
    """Raise UnsupportedError when the model cannot be shared by as many ranks and stages, or its
    steps by as many parts; at once, and not by every one of them."""
    engine, folder = config.engine, model_folder(config)
    parts, tokens = engine.prefill_context_parallel_size, engine.max_num_batched_tokens
    least = least_row(parts)
    if parts > 1 and (tokens or CPU_BUDGET) < least:
        raise UnsupportedError(
            f"--prefill-context-parallel-size {parts} shares chunks of {least} tokens or more, but "
            f"a step has at most {tokens or CPU_BUDGET}.",
            cure=f"Give --max-num-batched-tokens {least} or more, or fewer processes.",
            param="prefill_context_parallel_size",
        )
    stage = Stage(0, engine.pipeline_parallel_size)
    ranks = RankGroup(0, engine.tensor_parallel_size, stage, parts=parts)
    load(config, folder, read_config(folder), torch.device("cpu"), ranks, weights=False)


def _build(
    config: Config, clock: Clock, part: Part, workers: Workers | None, grammars: Grammars
) -> tuple[Scheduler, ClosableExecutor, ModelInfo]:
    stages, loaded = part.stages, part.loaded
    words = [part.word()]
    if workers is not None:
        with stages.time("wait for other ranks"):
            words += workers.loaded()
    stages.notes += [loaded.weights_note([word.weight_bytes for word in words]), loaded.how]
    room = _fit(config, part, words)
    if workers is not None:
        stages.notes.append(_shares(words, room, part.ranks.parts))
    limits = _limits(config, room, part)
    if workers is not None:
        workers.settle(room)
        way = config.engine.parallel_transport
        workers.seat.connect(part.ranks, part.device, way, workers.broken)
    vocab_size = loaded.model.vocab_size
    runner = part.runner(room, Constraints(grammars, vocab_size, room.max_num_seqs))
    executor: ClosableExecutor
    if workers is not None:
        workers.ready()
        executor = GroupExecutor(runner.run, workers)
    elif limits.depth > 1:
        executor = ThreadExecutor(runner.run)
    else:
        executor = InlineExecutor(runner.run)
    with stages.time("warm up"):
        warm_up(executor, runner.num_groups, room.block_size, limits.stages == 1)
    key = kv_key(part)
    scheduler = _scheduler(config, limits, room, loaded.model.kv_groups, clock, key)
    cache_bytes = room.num_blocks * room.block_size * sum(word.token_bytes for word in words)
    info = _info(part, room, key, cache_bytes)
    return scheduler, executor, info


def kv_key(part: Part) -> str:
    """What block hashes begin with: all that makes the KV of the same ids differ."""
    loaded = part.loaded
    kinds = (loaded.dtype, loaded.kv_dtype, loaded.format.name, part.ranks.size)
    return ":".join(map(str, (part.folder, *kinds)))


def _grammars(config: Config, vocab_size: int) -> Grammars:
    """Nothing is read before the first request with a grammar."""
    engine, model = config.engine, config.model
    if model.tokenizer is not None:
        model = replace(model, model=model.tokenizer, revision=None)

    def read() -> Vocabulary:
        folder = model_folder(replace(config, model=model))
        return Vocabulary(*tokenizer_json(folder), vocab_size)

    return Grammars(
        read, engine.grammar_max_bytes, engine.grammar_timeout_s, engine.grammar_cache_size
    )


def _scheduler(
    config: Config,
    limits: Limits,
    room: Room,
    groups: tuple[KVGroup, ...],
    clock: Clock,
    cache_key: str,
) -> Scheduler:
    engine = config.engine
    pool = BlockPool(room.num_blocks, room.block_size, engine.enable_prefix_caching)
    if engine.data_parallel_size > 1:
        # The router is told of a group with full attention, for that keeps whole prefixes.
        pool.watch(next((g for g, group in enumerate(groups) if not group.window), 0))
    return make_scheduler(engine, limits, pool, groups, clock, cache_key)


def _info(part: Part, room: Room, cache_key: str, cache_bytes: int) -> ModelInfo:
    return ModelInfo(
        vocab_size=part.loaded.model.vocab_size,
        max_model_len=room.max_model_len,
        eos_ids=eos_ids(part.folder, part.raw),
        block_size=room.block_size,
        num_blocks=room.num_blocks,
        max_num_seqs=room.max_num_seqs,
        max_num_batched_tokens=room.max_num_batched_tokens,
        dtype=str(part.loaded.dtype).removeprefix("torch."),
        device=str(part.device),
        architecture=str(part.raw["architectures"][0]),
        cache_key=cache_key,
        adapters=None if part.adapters is None else part.adapter_room,
        kv_cache_bytes=cache_bytes,
        hidden_size=part.loaded.model.hidden_size,
        shorter_embeddings=shorter_embeddings(part.raw),
        notes=part.stages.notes,
        kernels=_kernels(part),
        threads=part.threads or torch.get_num_threads(),
        stages_s=part.stages.seconds,
    )


def _kernels(part: Part) -> str:
    """Backend, and what of it decides about bits."""
    name = part.loaded.backend.name
    isa = cpu.isas()[-1] if name == NATIVE else f"torch {torch.__version__}"
    return f"{name} {isa} {part.device.type} x{part.ranks.size}"


def _threads(config: Config) -> int | None:
    """Of the arithmetic in one process: what the config says, or a share of the cores; None: as
    the libraries choose."""
    threads, processes = config.engine.num_threads, config.engine.processes
    if threads is None and processes > 1:
        return max(1, torch.get_num_threads() // processes)
    return threads


def _limits(config: Config, room: Room, part: Part) -> Limits:
    engine = config.engine
    stages = engine.pipeline_parallel_size
    # A plan more than stages would hide the host's time, but make every batch smaller.
    depth = max(engine.scheduler_depth, stages)
    tokens, mixed = room.max_num_batched_tokens, engine.max_num_mixed_prefill_tokens
    if mixed is None and engine.max_num_batched_tokens is None and part.device.type == "cpu":
        mixed = CPU_MIXED_PREFILL * engine.prefill_context_parallel_size
    beside = f", {mixed} of prompts while others decode" if mixed else ""
    part.stages.notes.append(f"a step computes up to {tokens} tokens{beside}")
    rows, slots = engine.max_num_seqs, part.adapter_slots
    return Limits(rows, tokens, room.max_model_len, depth, stages, mixed or None, slots)


def _fit(config: Config, part: Part, words: list[Word]) -> Room:
    """Block size, number of blocks and context. Raises ConfigError when they contradict."""
    model, sizes, notes = part.loaded.model, part.loaded.backend.block_sizes, part.stages.notes
    size = config.engine.block_size or sizes[0]
    if size not in sizes:
        known = ", ".join(map(str, sizes))
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
    each = size * max(word.token_bytes for word in words)
    per_request = -(-context // size) * len(groups)
    most = per_request * config.engine.max_num_seqs
    sharers = config.engine.data_parallel_size
    if part.device.type == "cuda" and config.engine.device == "auto":
        sharers = -(-sharers * len(words) // torch.cuda.device_count())
    wanted_bytes, free = config.engine.kv_cache_memory_bytes, _free_bytes(part, words)
    blocks, why = choose_num_blocks(wanted_bytes, each, most, part.device, sharers, free)
    by = " on each rank" if len(words) > 1 else ""
    kind = str(part.loaded.kv_dtype).removeprefix("torch.")
    cache = f"KV cache of {blocks} blocks, {kind} ({blocks * each / 2**20:.1f} MiB{by})"
    notes.append(f"{cache}: {why}")
    room = blocks // len(groups) * size
    if room < context:
        if wanted is not None:
            raise ConfigError(
                f"--max-model-len is {context}, but the KV cache holds {room} tokens.",
                cure="Raise --kv-cache-memory-bytes or lower --max-model-len.",
                param="max_model_len",
            )
        notes.append(f"context lowered from {context} to {room}: the cache holds no more")
        context = room
    tokens, rows = config.engine.max_num_batched_tokens, config.engine.max_num_seqs
    if tokens is None:
        tokens = max(CPU_BUDGET if part.device.type == "cpu" else GPU_BUDGET, rows)
    return Room(blocks, size, rows, tokens, context)


def _shares(words: list[Word], room: Room, parts: int) -> str:
    """What each rank holds, and which part of one copy of the model that is."""
    tokens = room.num_blocks * room.block_size
    held = [(word.weight_bytes, tokens * word.token_bytes) for word in words]
    whole = sum(map(sum, held)) / parts
    each = (
        f"{weights / 2**20:.1f} + {kv / 2**20:.1f} ({(weights + kv) / whole:.0%})"
        for weights, kv in held
    )
    return f"MiB of weights + KV cache, by rank: {', '.join(each)}"


def _free_bytes(part: Part, words: list[Word]) -> int:
    """What each rank may take: ranks on a CPU share its memory."""
    least = min([available_bytes(part.device), *(word.free_bytes for word in words[1:])])
    return least // len(words) if part.device.type == "cpu" else least


def warm_up(executor: Executor, num_groups: int, block_size: int, overlap: bool) -> None:
    """One small prefill and one decode in slot 0, so that the first request finds libraries
    loaded. Block 0 is overwritten by whoever gets it first. overlap: also the way of an id that
    the host does not know. Raises EngineError."""
    sampling = Sampling(temperature=1.0, max_tokens=2)
    plan = StepPlan(
        step=0,
        entries=[Entry(0, "warm-up", [0, 0], 2, sampling)],
        slots=[0],
        starts=[0],
        counts=[2],
        tokens=[0],
        samples=[True],
        blocks=[BlockDelta(0, group, 0, [0]) for group in range(num_groups)],
    )
    runs = [plan]
    if block_size > 2:
        runs.append(StepPlan(1, [], [0], [2], [1], [UNKNOWN if overlap else 0], [True]))
    for item in runs:
        executor.submit(item)
        error = executor.collect().error
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


def shorter_embeddings(raw: dict[str, Any]) -> tuple[int, ...]:
    """See ModelInfo."""
    sizes = raw.get("matryoshka_dimensions")
    if isinstance(sizes, list):
        return tuple(size for size in sizes if isinstance(size, int))
    return (0,) if raw.get("is_matryoshka") is True else ()
