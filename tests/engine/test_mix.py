"""Must hold 1: the oracle's tokens for every mix of chunk size, prefix cache, batch, preemption
and depth. The engine's loop runs in this thread, so that a mix costs no start."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from penstock.attention.base import AttentionBackend as Backend
from penstock.core.blocks import BlockPool
from penstock.core.clock import ManualClock
from penstock.core.events import Event, Finished, TokensOut
from penstock.core.limits import Limits
from penstock.core.plan import AdapterLoad
from penstock.core.policy import fcfs
from penstock.core.request import Adapter, FinishReason, Sampling, Submission
from penstock.core.scheduler import Scheduler
from penstock.engine.adapters import AdapterStore
from penstock.engine.client import EngineStats
from penstock.engine.engine import ClosableExecutor, Engine
from penstock.engine.executor import GroupExecutor, InlineExecutor, ThreadExecutor
from penstock.engine.frames import Room
from penstock.engine.kv import allocate_caches
from penstock.engine.load import NATIVE, NATIVE_HEADS
from penstock.engine.runner import ModelRunner
from penstock.engine.weights import load_model
from penstock.kernels import cpu
from penstock.layers.decoder import Decoder
from penstock.layers.native import NativeDecoder
from penstock.models.base import CausalLM
from penstock.quant.base import LinearFormat
from penstock.quant.plain import PLAIN
from penstock.registry import ATTENTION_BACKENDS
from tests import oracle
from tests.ranks import Team

BLOCK, NEW, CONTEXT = 16, 6, 128
MAX_RANK = 8
"""of adapters"""
CPU = torch.device("cpu")


class Mix(NamedTuple):
    chunk: int
    cache: bool
    batch: int
    preempt: bool
    depth: int


CHUNKS, BATCHES = (7, 64, 4096), (1, 8, 32)
ALL = [Mix(*m) for m in product(CHUNKS, (True, False), BATCHES, (False, True), (1, 2))]
COVER = [
    Mix(7, True, 8, True, 2),
    Mix(7, False, 32, False, 1),
    Mix(64, True, 1, False, 2),
    Mix(64, False, 8, True, 1),
    Mix(4096, True, 32, True, 1),
    Mix(4096, False, 1, False, 2),
]


def prepare(path: Path, name: str, form: LinearFormat = PLAIN) -> tuple[CausalLM, Backend]:
    """A checkpoint for the attention backend of that name; `cpu` makes a program of it."""
    backend: Backend = ATTENTION_BACKENDS.load(name)()
    model = load_model(path, torch.float32, CPU, backend, form)
    if name != NATIVE:
        return model, backend
    assert isinstance(model, Decoder)
    return NativeDecoder(model, max(CHUNKS), max(BATCHES), CONTEXT, threads=2), backend


def run(
    model: CausalLM,
    backend: Backend,
    mix: Mix,
    prompts: list[list[int]],
    team: Team | None = None,
    adapters: list[Adapter | None] | None = None,
    slots: int = 0,
) -> tuple[list[list[int]], int]:
    """(tokens of each prompt, preemptions). A team has loaded the model on its ranks. adapters: of
    each prompt, where the model has slots for some."""
    groups = model.kv_groups
    longest = max(len(p) for p in prompts) + NEW
    per_request = -(-longest // BLOCK) * len(groups)
    blocks = per_request + 2 * len(groups) if mix.preempt else per_request * (mix.batch + 1)
    executor = _executor(model, backend, mix, blocks, team, slots)
    stages = 1 if team is None else team.stages
    pool = BlockPool(blocks, BLOCK, mix.cache)
    depth = mix.depth + stages - 1
    limits = Limits(mix.batch, mix.chunk, CONTEXT, depth, stages, max_adapters=slots)
    scheduler = Scheduler(limits, pool, groups, fcfs, ManualClock())
    seen: list[Event] = []

    def publish(events: list[Event], stats: EngineStats) -> None:
        seen.extend(events)

    engine = Engine(scheduler, executor, ManualClock(), publish)
    sampling = Sampling(temperature=0.0, max_tokens=NEW)
    for i, prompt in enumerate(prompts):
        adapter = None if adapters is None else adapters[i]
        scheduler.add(Submission(str(i), prompt, sampling, adapter=adapter))
    steps, forced = 0, 2
    while scheduler.has_work:
        engine.step()
        scheduler.check()
        steps += 1
        if mix.preempt and steps == forced:  # ever rarer: without a cache all work is lost
            any(scheduler.preempt(request_id) for request_id in scheduler.live_ids())
            forced *= 2
    executor.close()
    ends = [e for e in seen if isinstance(e, Finished)]
    assert [e.reason for e in ends] == [FinishReason.LENGTH] * len(prompts)
    assert pool.num_available == pool.num_blocks
    out: list[list[int]] = [[] for _ in prompts]
    for event in seen:
        if isinstance(event, TokensOut):
            out[int(event.id)] += event.tokens
    return out, scheduler.counters.preemptions


def _executor(
    model: CausalLM, backend: Backend, mix: Mix, blocks: int, team: Team | None, slots: int
) -> ClosableExecutor:
    if team is not None:
        runner = team.settle(Room(blocks, BLOCK, mix.batch, mix.chunk, CONTEXT))
        return GroupExecutor(runner.run, team)
    shape = (model.num_kv_heads, model.head_dim, torch.float32, CPU)
    caches = allocate_caches(backend, model.kv_groups, blocks, BLOCK, *shape)
    put = partial(put_adapter, model, AdapterStore(MAX_RANK))
    runner = ModelRunner(
        model, caches, BLOCK, mix.batch, CONTEXT, CPU, set_adapter=put, max_adapters=slots
    )
    return (ThreadExecutor if mix.depth > 1 else InlineExecutor)(runner.run)


def put_adapter(model: CausalLM, store: AdapterStore, load: AdapterLoad) -> None:
    assert isinstance(model, Decoder | NativeDecoder)
    model.set_adapter(load.slot, store.get(load.adapter))


def asked(path: Path, seed: int) -> list[list[int]]:
    """The oracle's twenty prompts, and six with long beginnings of the longest of them (those
    whose smallest gap is large enough to compare ids)."""
    found = oracle.prompts(seed, 20, 320)
    longest = found[5]
    shared = [longest]
    for cut in range(len(longest) - 1, 8, -1):
        try:
            oracle.greedy(path, longest[:cut], NEW)
        except AssertionError:
            continue
        shared.append(longest[:cut])
        if len(shared) == 6:
            return found + shared
    raise AssertionError(f"{path.name}: choose another seed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mix")


def with_heads_of_16(family: str, shape: oracle.Shape, folder: Path) -> oracle.Shape:
    """The shape as the kernels can compute it; other weights need a seed of their own: the next
    one with gaps that are large enough."""
    fields = shape.fields | {"head_dim": 16}
    for seed in range(shape.seed, shape.seed + 20):
        made = replace(shape, name=f"{shape.name}-16", fields=fields, seed=seed)
        path = oracle.make_checkpoint(family, made, seed, folder)
        try:
            for prompt in asked(path, seed):
                oracle.greedy(path, prompt, NEW)
        except AssertionError:
            continue
        return made
    raise AssertionError(f"{family}-{shape.name}: no seed will do")


def check(family: str, shape: oracle.Shape, mixes: list[Mix], folder: Path, backend: str) -> None:
    torch.set_num_threads(1)
    if backend == NATIVE:
        if (reason := cpu.available()) is not None:
            pytest.skip(reason)
        if shape.fields.get("head_dim", 12) not in NATIVE_HEADS:
            shape = with_heads_of_16(family, shape, folder)
    path = oracle.make_checkpoint(family, shape, shape.seed, folder)
    model, attention = prepare(path, backend)
    prompts = asked(path, shape.seed)
    expected = [oracle.greedy(path, prompt, NEW) for prompt in prompts]
    for mix in mixes:
        out, preemptions = run(model, attention, mix, prompts)
        assert out == expected, mix
        assert not mix.preempt or preemptions, f"{mix} preempted nobody"


def _id(value: Any) -> str:
    return str(getattr(value, "name", value))


BACKENDS = pytest.mark.parametrize("backend", ["torch", NATIVE])


ONE_EACH = [(family, shapes[0]) for family, shapes in oracle.FAMILIES.items()]
FIRST = ("llama", "mistral", "qwen2", "qwen3", "smollm3")
"""families whose cover is whole in the normal run; the others' in the slow one"""


@BACKENDS
@pytest.mark.parametrize(("family", "shape"), ONE_EACH, ids=_id)
def test_the_same_tokens_for_a_cover_of_mixes(
    family: str, shape: oracle.Shape, backend: str, folder: Path
) -> None:
    check(family, shape, COVER if family in FIRST else COVER[:1], folder, backend)


@BACKENDS
def test_the_same_tokens_for_every_mix(backend: str, folder: Path) -> None:
    """Two KV groups at once: full layers and windows."""
    shape = next(s for s in oracle.FAMILIES["qwen3"] if s.name == "windows")
    check("qwen3", shape, ALL, folder, backend)


@pytest.mark.slow
@BACKENDS
@pytest.mark.parametrize(("family", "shape"), oracle.shapes(), ids=_id)
def test_the_same_tokens_for_every_mix_of_every_shape(
    family: str, shape: oracle.Shape, backend: str, folder: Path
) -> None:
    check(family, shape, ALL, folder, backend)
