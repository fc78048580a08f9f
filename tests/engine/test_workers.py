"""Ranks as processes: refusals before anything is served, faults that end the whole group with
their cause, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from penstock.config import Config, EngineConfig, ModelConfig
from penstock.core.request import FinishReason
from penstock.engine.build import build_engine
from penstock.engine.client import ModelInfo
from penstock.engine.clock import MonotonicClock
from penstock.engine.group import EngineGroup, Restarts
from penstock.engine.inprocess import InProcessClient
from penstock.engine.workers import Workers
from penstock.errors import (
    CheckpointError,
    ConfigError,
    EngineDeadError,
    EngineError,
)
from tests import oracle
from tests.engine.test_process import read
from tests.fakes import submission
from tests.forks import ForkServer

Client = InProcessClient | EngineGroup
FOUND_S = 5.0
"""how soon a fault must be found"""


def config(folder: Path, size: int = 2, quantization: str = "none", **engine: Any) -> Config:
    options = {"max_num_seqs": 4, "num_threads": 1, "tensor_parallel_size": size} | engine
    model = ModelConfig(model=str(folder), quantization=quantization)
    return Config(model, EngineConfig(**options))


@pytest.fixture(autouse=True)
def quick_starts(forks: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of an engine in this process are forked; engine processes, which some tests stop,
    and theirs are started as ever."""
    monkeypatch.setattr(sys, "executable", forks.python)


@pytest.fixture(autouse=True)
def nothing_left(quick_starts: None) -> Iterator[None]:
    """No child process and no open file more than before."""
    me = psutil.Process()
    children, files = set(me.children(recursive=True)), me.num_fds()
    yield
    gc.collect()
    left = set(me.children(recursive=True)) - children
    assert psutil.wait_procs(left, timeout=5)[1] == []
    assert me.num_fds() <= files


def final(chosen: Config) -> EngineGroup:
    """An engine process that is not replaced, so that its end can be looked at."""
    return EngineGroup(chosen, restarts=Restarts(most=0))


@asynccontextmanager
async def served(
    kind: Callable[[Config], Client], chosen: Config
) -> AsyncIterator[tuple[Client, ModelInfo]]:
    client = kind(chosen)
    try:
        yield client, await client.start()
    finally:
        await client.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 3}, "4 attention heads over 2 KV heads"),
        ({"size": 2, "quantization": "int4"}, "one scale for 32"),
        ({"size": 1, "pipeline_parallel_size": 3}, "has 2 layers"),
        ({"size": 2, "block_size": 3}, "--block-size 3"),
        ({"size": 2, "kv_cache_memory_bytes": 10}, "no block"),
    ],
)
def test_what_cannot_work_is_refused(tiny: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_engine(config(tiny, **options), MonotonicClock(), lambda events, stats: None)


def test_an_error_of_a_worker_is_the_typed_error(tmp_path: Path) -> None:
    workers = Workers(config(tmp_path / "nothing"))
    try:
        with pytest.raises(CheckpointError, match="nothing"):
            workers.loaded()
    finally:
        workers.close()


def test_a_worker_that_dies_at_start_is_told(tiny: Path) -> None:
    workers = Workers(config(tiny))
    try:
        os.kill(workers.pids[0], signal.SIGKILL)
        with pytest.raises(EngineError, match=r"Rank 1 ended \(signal SIGKILL\)"):
            workers.loaded()
    finally:
        workers.close()
        workers.close()


async def follow(client: Any, began: asyncio.Event) -> str:
    """Read a long answer; the message that it ended with."""
    (box,) = client.submit([submission("a", [5] * 30, 400)])
    try:
        async for delta in box:
            began.set()
            if delta.finish is FinishReason.ERROR:
                return str(delta.error["message"])
            assert delta.finish is None
    except EngineDeadError as error:
        return error.message
    raise AssertionError("the answer went on to its end")


def worker_of(client: Client) -> int:
    """The process of rank 1."""
    parent = psutil.Process()
    if isinstance(client, EngineGroup):
        parent = psutil.Process(client.processes()["engine"])
    (worker,) = (p for p in parent.children() if "penstock.engine.worker" in p.cmdline())
    return worker.pid


async def strike(client: Any, number: int, delay_s: float) -> str:
    """Send a signal to rank 1 in the midst of an answer; the answer's last words."""
    began = asyncio.Event()
    reading = asyncio.create_task(follow(client, began))
    await began.wait()
    await asyncio.sleep(delay_s)
    os.kill(worker_of(client), number)
    at = time.monotonic()
    words = await reading
    assert time.monotonic() - at < 2 * FOUND_S, "found, told, and every process ended"
    return words


@pytest.mark.parametrize(
    ("kind", "size", "stages", "way"),
    [
        (InProcessClient, 2, 1, "shared_memory"),
        (final, 1, 2, "shared_memory"),
        (final, 2, 1, "distributed"),
    ],
)
async def test_two_ranks_give_the_oracles_tokens_until_one_is_killed(
    kind: Any, size: int, stages: int, way: str, tiny: Path
) -> None:
    asked = oracle.prompts(0, 6, 320)
    expected = [oracle.greedy(tiny, prompt, 5) for prompt in asked]
    chosen = config(tiny, size, pipeline_parallel_size=stages, parallel_transport=way)
    async with served(kind, chosen) as (client, info):
        (held,) = (note for note in info.notes if "by rank" in note)
        shares = [int(share) for share in re.findall(r"(\d+)%", held)]
        assert len(shares) == 2
        assert all(40 <= share <= 60 for share in shares), held
        assert any("on each rank" in note for note in info.notes)
        reads = [read(client, str(i), prompt, 5) for i, prompt in enumerate(asked)]
        assert await asyncio.gather(*reads) == expected
        words = await strike(client, signal.SIGKILL, 0.05)
        assert "Rank 1 ended (signal SIGKILL)" in words
        with pytest.raises(EngineDeadError):
            client.check_health(60)


async def test_a_stopped_rank_ends_the_group(tiny: Path) -> None:
    async with served(final, config(tiny)) as (client, _):
        assert "Rank 1 hangs: no sign of life" in await strike(client, signal.SIGSTOP, 0.0)


async def test_requests_outlive_the_group_that_served_them(tiny: Path) -> None:
    """A new group takes over, and the reader sees one stream with the oracle's tokens."""
    prompt = oracle.prompts(0, 6, 320)[5]
    async with served(EngineGroup, config(tiny)) as (client, _):
        expected = await read(client, "whole", prompt, 200)
        began, found = asyncio.Event(), list[int]()

        async def follow() -> None:
            (box,) = client.submit([submission("moved", prompt, 200, temperature=0.0)])
            async for delta in box:
                found.extend(delta.tokens)
                began.set()

        reading = asyncio.create_task(follow())
        await began.wait()
        os.kill(worker_of(client), signal.SIGKILL)
        assert len(found) < len(expected)
        await reading
        assert found == expected
        assert client.stats().restarts == 1


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(50))
async def test_faults_at_random_moments(moment: int, tiny: Path) -> None:
    draw = random.Random(moment)
    way = draw.choice(["shared_memory", "distributed"])
    number = draw.choice([signal.SIGKILL, signal.SIGSTOP])
    chosen = config(tiny, parallel_transport=way)
    async with served(final, chosen) as (client, _):
        assert "Rank 1" in await strike(client, number, draw.random())


PYTHON = sys.executable
PARENT = """
import asyncio, sys
from penstock.config import Config, EngineConfig, ModelConfig
from penstock.engine.group import EngineGroup

async def main():
    engine = EngineConfig(tensor_parallel_size=2, num_threads=1)
    client = EngineGroup(Config(ModelConfig(model=sys.argv[1]), engine))
    await client.start()
    print(client.processes()["engine"], flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("victim", ["engine", "parent"])
def test_workers_end_with_whom_they_work_for(tiny: Path, victim: str) -> None:
    with subprocess.Popen(
        [PYTHON, "-c", PARENT, str(tiny)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        engine = psutil.Process(int(parent.stdout.readline()))
        (worker,) = engine.children()
        worker.send_signal(signal.SIGSTOP)
        (engine if victim == "engine" else parent).kill()
        worker.wait(timeout=FOUND_S)
        engine.wait(timeout=FOUND_S)
        parent.kill()


def test_a_group_without_a_config_for_it_is_not_started(tiny: Path) -> None:
    """One rank is the default: no process, no torch.distributed."""
    before = psutil.Process().children()
    engine, _ = build_engine(config(tiny, 1), MonotonicClock(), lambda events, stats: None)
    assert psutil.Process().children() == before
    engine.close()


def test_sizes_below_one_are_refused(tiny: Path) -> None:
    wrong = config(tiny)
    wrong = replace(wrong, engine=replace(wrong.engine, tensor_parallel_size=0))
    with pytest.raises(ConfigError, match="--tensor-parallel-size"):
        wrong.check()
