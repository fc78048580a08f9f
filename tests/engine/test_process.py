"""Both clients against a real engine: the same answers, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from penstock.config import Config, EngineConfig, ModelConfig
from penstock.core.request import FinishReason
from penstock.engine.client import ModelInfo
from penstock.engine.group import EngineGroup
from penstock.engine.inprocess import InProcessClient
from penstock.errors import CheckpointError, ContextLengthError, EngineStuckError
from tests import oracle
from tests.engine.waiting import until
from tests.fakes import submission

Client = InProcessClient | EngineGroup
KINDS = [InProcessClient, EngineGroup]


def config(folder: Path) -> Config:
    return Config(ModelConfig(model=str(folder)), EngineConfig(max_num_seqs=4, num_threads=1))


@asynccontextmanager
async def served(
    kind: Callable[[Config], Client], folder: Path
) -> AsyncIterator[tuple[Client, ModelInfo]]:
    client = kind(config(folder))
    try:
        yield client, await client.start()
    finally:
        await client.close()


async def read(client: Client, name: str, prompt: list[int], count: int) -> list[int]:
    tokens: list[int] = []
    (box,) = client.submit([submission(name, prompt, count, temperature=0.0)])
    async for delta in box:
        tokens += delta.tokens
    return tokens


@pytest.mark.parametrize("kind", KINDS)
async def test_requests_of_the_moment_get_the_oracles_tokens(kind: type, tiny: Path) -> None:
    asked = oracle.prompts(0, 8, 320)
    expected = [oracle.greedy(tiny, prompt, 5) for prompt in asked]
    async with served(kind, tiny) as (client, info):
        assert info.max_model_len == 512
        reads = [read(client, str(i), prompt, 5) for i, prompt in enumerate(asked)]
        with pytest.raises(ContextLengthError, match="context holds 512"):
            await read(client, "too long", [5] * 512, 5)
        assert await asyncio.gather(*reads) == expected


@pytest.mark.parametrize("kind", KINDS)
async def test_an_abort_frees_its_blocks(kind: type, tiny: Path) -> None:
    async with served(kind, tiny) as (client, _):
        (box,) = client.submit([submission("a", [5] * 30, 400)])
        await anext(box)
        client.abort(["a"])
        async for delta in box:
            last = delta
        assert last.finish is FinishReason.ABORT
        await until(lambda: client.stats().running == 0 and client.stats().step_s == 0.0)
        stats = client.stats()
        assert stats.blocks_free + stats.blocks_cached == stats.blocks_total
        assert stats.leaked_blocks == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_missing_checkpoint_is_a_typed_error(kind: type, tmp_path: Path) -> None:
    client = kind(config(tmp_path / "nothing"))
    with pytest.raises(CheckpointError):
        await client.start()
    await client.close()


async def test_a_stopped_engine_is_unhealthy_and_recovers(tiny: Path) -> None:
    async with served(EngineGroup, tiny) as (client, _):
        assert isinstance(client, EngineGroup)
        os.kill(client.processes()["engine"], signal.SIGSTOP)
        reading = asyncio.create_task(read(client, "a", [5] * 30, 20))
        await asyncio.sleep(0.5)
        with pytest.raises(EngineStuckError):
            client.check_health(0.3)
        os.kill(client.processes()["engine"], signal.SIGCONT)
        assert len(await reading) == 20
        client.check_health(0.3)


PARENT = """
import asyncio, sys
from pathlib import Path
from penstock.config import Config, ModelConfig
from penstock.engine.group import EngineGroup

async def main():
    client = EngineGroup(Config(ModelConfig(model=sys.argv[1])))
    await client.start()
    print(client.processes()["engine"], flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def test_an_engine_ends_when_its_parent_is_killed(tiny: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tiny)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        engine = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    engine.wait(timeout=10)
