"""From a config to an engine that is ready to run, with what was decided and why."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from penstock.attention.base import AttentionBackend
from penstock.config import Config
from penstock.core.blocks import BlockPool
from penstock.core.clock import Clock
from penstock.core.plan import UNKNOWN, BlockDelta, Entry, Executor, StepPlan
from penstock.core.policy import make_policy
from penstock.core.request import Sampling
from penstock.core.scheduler import Limits, Scheduler
from penstock.engine.client import ModelInfo
from penstock.engine.engine import ClosableExecutor, Engine, Publish
from penstock.engine.executor import GroupExecutor, InlineExecutor, ThreadExecutor
from penstock.engine.frames import Room, Word
from penstock.engine.hub import model_folder
from penstock.engine.kv import allocate_caches, available_bytes, block_bytes, choose_num_blocks
from penstock.engine.runner import ModelRunner
from penstock.engine.weights import build_model, load_model, read_config
from penstock.engine.workers import Workers
from penstock.errors import CheckpointError, ConfigError, EngineError
from penstock.models.base import CausalLM
from penstock.parallel.ranks import ALONE, RankGroup
from penstock.parallel.stages import Stage
from penstock.quant.base import LinearFormat
from penstock.registry import ATTENTION_BACKENDS, FORMATS

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CPU_BUDGET = 256
GPU_BUDGET = 8192


@dataclass(slots=True)
class Stages:
    """Seconds of each stage of a start, in order."""

    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - began


@dataclass(frozen=True, slots=True)
class Part:
    """What a rank has once its weights are loaded: all of the model when it is alone."""

    folder: Path
    raw: dict[str, Any]
    """config.json"""
    model: CausalLM
    backend: AttentionBackend
    linear_format: LinearFormat
    dtype: torch.dtype
    device: torch.device

    @property
    def weight_bytes(self) -> int:
        return sum(target.into.nbytes for target in self.model.targets().values())

    def word(self) -> Word:
        """What the leader wants to know of a rank."""
        model = self.model
        shape = (model.num_kv_heads, model.head_dim, self.dtype)
        token_bytes = block_bytes(model.kv_groups, 1, *shape)
        return Word("loaded", self.weight_bytes, token_bytes, available_bytes(self.device))

    def runner(self, room: Room, ranks: RankGroup) -> ModelRunner:
        """With its KV cache."""
        model = self.model
        caches = allocate_caches(
            self.backend,
            model.kv_groups,
            room.num_blocks,
            room.block_size,
            model.num_kv_heads,
            model.head_dim,
            self.dtype,
            self.device,
        )
        return ModelRunner(
            model,
            caches,
            room.block_size,
            room.max_num_seqs,
            room.max_model_len,
            self.device,
            ranks,
        )


def load_part(config: Config, ranks: RankGroup, stages: Stages | None = None) -> Part:
    """A rank's model with its weights. Raises ConfigError, CheckpointError, …"""
    stages = stages or Stages()
    device = choose_device(config, ranks.number)
    set_threads(config)
    with stages.time("find checkpoint"):
        folder = model_folder(config)
        raw = read_config(folder)
    backend, dtype = choose_backend(config, stages), choose_dtype(config, raw)
    linear_format: LinearFormat = FORMATS.load(config.model.quantization)()
    with stages.time("load weights"):
        model = load_model(folder, dtype, device, backend, linear_format, ranks)
    return Part(folder, raw, model, backend, linear_format, dtype, device)


def build_engine(config: Config, clock: Clock, publish: Publish) -> tuple[Engine, ModelInfo]:
    """Load the model, fit the cache, warm up. Raises ConfigError, CheckpointError, …"""
    workers, ranks = None, ALONE
    if config.engine.processes > 1:
        folder = model_folder(config)  # found once, not by every rank
        found = replace(config.model, model=str(folder), revision=None)
        config = replace(config, model=found)
        check_split(config)
        workers = Workers(config)
        ranks = workers.seat.ranks()
    try:
        return _build(config, clock, publish, ranks, workers)
    except BaseException:
        if workers is not None:
            workers.close()
        raise


def check_split(config: Config) -> None:
    """Raise UnsupportedError when the model cannot be shared by as many ranks and stages; at once,
    and not by every one of them."""
    engine, folder = config.engine, model_folder(config)
    stage = Stage(0, engine.pipeline_parallel_size)
    ranks = RankGroup(0, engine.tensor_parallel_size, stage)
    linear_format = FORMATS.load(config.model.quantization)()
    backend, dtype = choose_backend(config, Stages()), choose_dtype(config, read_config(folder))
    build_model(folder, dtype, torch.device("cpu"), backend, linear_format, ranks)


def _build(
    config: Config, clock: Clock, publish: Publish, ranks: RankGroup, workers: Workers | None
) -> tuple[Engine, ModelInfo]:
    stages = Stages()
    part = load_part(config, ranks, stages)
    model = part.model
    words = [part.word()]
    if workers is not None:
        with stages.time("wait for other ranks"):
            words += workers.loaded()
    with stages.time("allocate cache"):
        stages.notes.append(_weights_note(part, words))
        room = _fit(config, part, words, stages)
        if workers is not None:
            workers.settle(room)
            way = config.engine.parallel_transport
            workers.seat.connect(ranks, part.device, way, workers.broken)
        runner = part.runner(room, ranks)
    limits = _limits(config, room.max_model_len, part.device)
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
    scheduler = Scheduler(
        limits,
        BlockPool(room.num_blocks, room.block_size, config.engine.enable_prefix_caching),
        model.kv_groups,
        make_policy(config.engine.scheduling_policy, config.engine.priority_ageing_s),
        clock,
        cache_key=f"{part.folder}:{part.dtype}:{part.linear_format.name}:{ranks.size}",
    )
    return Engine(scheduler, executor, clock, publish), _info(part, room, limits, stages)


def _info(part: Part, room: Room, limits: Limits, stages: Stages) -> ModelInfo:
    return ModelInfo(
        vocab_size=part.model.vocab_size,
        max_model_len=limits.max_model_len,
        eos_ids=eos_ids(part.folder, part.raw),
        block_size=room.block_size,
        num_blocks=room.num_blocks,
        max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=limits.max_num_batched_tokens,
        dtype=str(part.dtype).removeprefix("torch."),
        device=str(part.device),
        architecture=str(part.raw["architectures"][0]),
        notes=stages.notes,
        stages_s=stages.seconds,
    )


def set_threads(config: Config) -> None:
    """Of torch in this process: what the config says, or a share of the processor's cores."""
    threads, processes = config.engine.num_threads, config.engine.processes
    if threads is None and processes > 1:
        threads = max(1, torch.get_num_threads() // processes)
    if threads is not None:
        torch.set_num_threads(threads)


def choose_device(config: Config, number: int = 0) -> torch.device:
    """The config's device; `auto` is a GPU where there is one. Process n has the n-th GPU from
    the first one on. Raises ConfigError."""
    name = config.engine.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if number and name.startswith("cuda"):
        first = name.partition(":")[2] or "0"
        name = f"cuda:{int(first) + number}" if first.isdecimal() else name
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"--device {name} is not there: {str(error).splitlines()[0]}",
            cure="Use cpu, or leave the flag away.",
            param="device",
        ) from error
    return device


def choose_dtype(config: Config, raw: dict[str, Any]) -> torch.dtype:
    """The config's dtype; `auto` is the checkpoint's own. Raises CheckpointError."""
    name = config.model.dtype
    if name == "auto":
        name = str(raw.get("dtype") or raw.get("torch_dtype") or "float32")
    dtype = DTYPES.get(name.removeprefix("torch."))
    if dtype is None:
        raise CheckpointError(
            f"The checkpoint's dtype {name!r} is not supported.",
            cure="Give --dtype bfloat16 or --dtype float32.",
            param="dtype",
        )
    return dtype


def choose_backend(config: Config, stages: Stages) -> AttentionBackend:
    """The config's attention backend; what to know of it becomes a note."""
    name = config.engine.attention_backend
    if name == "auto":
        name = "torch"
    backend: AttentionBackend = ATTENTION_BACKENDS.load(name)()
    stages.notes.append(
        f"attention backend {name}: plain torch operators, so results are not bitwise equal "
        "between batches of different shape"
    )
    return backend


def _weights_note(part: Part, words: list[Word]) -> str:
    note = " + ".join(f"{word.weight_bytes / 2**20:.1f}" for word in words)
    note = f"weights of {note} MiB" + (", by rank" if len(words) > 1 else "")
    if part.linear_format.name == "none":
        return note
    return f"{note}, quantized at load to {part.linear_format.name}, computed by torch operators"


def _limits(config: Config, max_model_len: int, device: torch.device) -> Limits:
    engine = config.engine
    budget = engine.max_num_batched_tokens
    if budget is None:
        budget = max(CPU_BUDGET if device.type == "cpu" else GPU_BUDGET, engine.max_num_seqs)
    stages = engine.pipeline_parallel_size
    # A plan more than stages would hide the host's time, but make every batch smaller.
    depth = max(engine.scheduler_depth, stages)
    return Limits(engine.max_num_seqs, budget, max_model_len, depth, stages)


def _fit(config: Config, part: Part, words: list[Word], stages: Stages) -> Room:
    """Block size, number of blocks and context. Raises ConfigError when they contradict."""
    model, sizes = part.model, part.backend.block_sizes
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
    blocks, why = choose_num_blocks(
        config.engine.kv_cache_memory_bytes, each, most, part.device, _free_bytes(part, words)
    )
    by = " on each rank" if len(words) > 1 else ""
    note = f"KV cache of {blocks} blocks ({blocks * each / 2**20:.1f} MiB{by}): {why}"
    stages.notes.append(note)
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
    return Room(blocks, size, config.engine.max_num_seqs, context)


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
