"""Context parallelism: parts of a long prompt on several ranks, the whole cache on each."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from penstock.attention.base import AttnBatch
from penstock.config import Config, EngineConfig, ModelConfig
from penstock.core.plan import BlockDelta, Entry, StepPlan, TokenLogprobs
from penstock.core.request import Sampling
from penstock.engine.build import build_engine
from penstock.engine.clock import MonotonicClock
from penstock.engine.group import EngineGroup
from penstock.engine.kv import allocate_caches
from penstock.engine.load import NATIVE
from penstock.engine.runner import ModelRunner
from penstock.engine.weights import load_model
from penstock.errors import UnsupportedError
from penstock.kernels import cpu
from penstock.layers.decoder import Decoder
from penstock.parallel.meeting import Meeting
from penstock.parallel.ranks import RankGroup
from penstock.registry import ATTENTION_BACKENDS, FORMATS
from tests import oracle
from tests.fakes import submission
from tests.forks import ForkServer

CPU = torch.device("cpu")
BLOCK, LENGTH, PARTS = 16, 100, 2
GREEDY = Sampling(temperature=0.0, max_tokens=4)


class Counted(Decoder):
    """Notes how many tokens it was given."""

    seen: list[int]

    def forward(
        self, x: Tensor, positions: Tensor, caches: list[Tensor], batch: AttnBatch
    ) -> Tensor:
        self.seen.append(len(x))
        return super().forward(x, positions, caches, batch)


def plans() -> list[StepPlan]:
    """A short row beside a long one, then both decode, then the long one goes on."""
    ids = oracle.prompts(0, 6, 320)[5] + oracle.prompts(1, 6, 320)[5]
    short, long = ids[:5], ids[5 : 5 + LENGTH]
    tables = [BlockDelta(0, 0, 0, [8]), BlockDelta(1, 0, 0, list(range(7)))]
    entries = [Entry(0, "short", short, 5, GREEDY), Entry(1, "long", long, LENGTH, GREEDY)]
    return [
        StepPlan(0, entries, [0, 1], [0, 0], [5, 60], [short[-1], 0], [True, False], tables),
        StepPlan(1, [], [0, 1], [5, 60], [1, 40], [-1, long[-1]], [True, True]),
        StepPlan(2, [], [0, 1], [6, LENGTH], [1, 1], [-1, -1], [True, True]),
    ]


def test_each_part_computes_its_share_and_all_keep_the_whole_cache(tiny: Path) -> None:
    meeting = Meeting.call(PARTS)

    def act(part: int, parts: int) -> tuple[list[list[int]], list[Tensor], list[int]]:
        ranks = RankGroup(part=part, parts=parts)
        if parts > 1:
            ranks.peers = meeting.connect(part, CPU, "shared_memory", lambda: False)
        backend = ATTENTION_BACKENDS.load("torch")()
        model = load_model(tiny, torch.float32, CPU, backend, FORMATS.load("none")(), ranks)
        model.__class__ = Counted
        model.seen = []
        shape = (model.num_kv_heads, model.head_dim, torch.float32, CPU)
        caches = allocate_caches(backend, model.kv_groups, 9, BLOCK, *shape)
        runner = ModelRunner(model, caches, BLOCK, 2, 256, CPU, ranks)
        results = [runner.run(plan) for plan in plans()]
        assert [result.error for result in results] == [None] * 3
        return [ids for result in results for ids in result.tokens], caches, model.seen

    (expected, whole, _) = act(0, 1)
    with ThreadPoolExecutor(PARTS) as pool:
        found = list(pool.map(act, range(PARTS), [PARTS] * PARTS))
    for fd in meeting.fds:
        os.close(fd)
    assert found[0][0] == expected
    assert len(expected) == 5
    for _, caches, _ in found:
        torch.testing.assert_close(caches, whole, rtol=0, atol=1e-5)
    # decodes and short rows are the leader's in a shared step, and everybody's in the last one
    assert [seen for _, _, seen in found] == [[35, 21, 2], [30, 20, 2]]


LONG = 8192
SHAPE = oracle.Shape(
    "long",
    "LlamaConfig",
    0,
    {
        "hidden_size": 32,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": LONG + 64,
    },
)


@pytest.mark.parametrize("backend", ["torch", NATIVE])
async def test_eight_thousand_tokens_over_two_ranks_equal_one(
    backend: str, forks: ForkServer, tmp_path: Path
) -> None:
    """Row D4. Bit for bit with our kernels: a row of theirs does not depend on its company."""
    if backend == NATIVE and (reason := cpu.available()) is not None:
        pytest.skip(reason)
    path = oracle.make_checkpoint("llama", SHAPE, SHAPE.seed, tmp_path)
    draw = torch.Generator().manual_seed(1)
    prompt = torch.randint(2, 320, (LONG,), generator=draw).tolist()
    engine = EngineConfig(
        max_num_seqs=2, num_threads=1, max_num_batched_tokens=2048, attention_backend=backend
    )

    async def answer(parts: int) -> list[TokenLogprobs]:
        chosen = replace(engine, prefill_context_parallel_size=parts)
        program = (forks.python, "-m", "penstock.engine.process")
        group = EngineGroup(Config(ModelConfig(model=str(path)), chosen).check(), program)
        try:
            await group.start()
            (box,) = group.submit([submission("a", prompt, 6, temperature=0.0, logprobs=5)])
            return [one async for delta in box for one in delta.logprobs or ()]
        finally:
            await group.close()

    one, two = await answer(1), await answer(2)
    assert [each.token for each in two] == [each.token for each in one]
    assert len(one) == 6
    tolerance = 0.0 if backend == NATIVE else 2 * oracle.TOLERANCE
    for a, b in zip(one, two, strict=True):
        assert b.top_ids == a.top_ids
        assert b.top_logprobs == pytest.approx(a.top_logprobs, rel=0, abs=tolerance)


def test_a_step_too_small_to_be_shared_is_refused(tiny: Path) -> None:
    engine = EngineConfig(
        max_num_seqs=4, max_num_batched_tokens=40, prefill_context_parallel_size=3, num_threads=1
    )
    with pytest.raises(UnsupportedError, match="--max-num-batched-tokens 48 or more"):
        build_engine(
            Config(ModelConfig(model=str(tiny)), engine),
            MonotonicClock(),
            lambda events, stats: None,
        )
