"""Engines behind one client that are killed, stopped and hung while their requests go on."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from penstock.config import Config, EngineConfig, ModelConfig
from penstock.core.events import Event, TokensOut
from penstock.core.request import FinishReason
from penstock.engine.client import EngineStats
from penstock.engine.group import EngineGroup, Restarts
from penstock.errors import EngineDeadError, EngineStuckError
from tests import oracle
from tests.engine.fake_process import CRASH, HANG
from tests.engine.waiting import until
from tests.fakes import continuation, submission

FAKE = (sys.executable, "-m", "tests.engine.fake_process")
ALWAYS = Restarts(most=1000, backoff_s=0.01, longest_s=0.05, crashes=1000)


def config(engines: int, folder: Path | None = None) -> Config:
    engine = EngineConfig(max_num_seqs=8, num_threads=1, data_parallel_size=engines)
    return Config(ModelConfig(model=str(folder)), engine)


@asynccontextmanager
async def fakes(engines: int, restarts: Restarts = ALWAYS) -> AsyncIterator[EngineGroup]:
    """A group of engines without a model; on leaving, nothing of it may be left."""
    me = psutil.Process()
    before = (me.num_fds(), len(me.children()))
    with tempfile.TemporaryDirectory() as folder:
        usual, tempfile.tempdir = tempfile.tempdir, folder
        group = EngineGroup(config(engines), FAKE, restarts)
        try:
            await group.start()
            yield group
        finally:
            await group.close()
            tempfile.tempdir = usual
        assert os.listdir(folder) == []
    assert (me.num_fds(), len(me.children())) == before


async def balanced(group: EngineGroup, engines: int) -> None:
    """Every engine serves, rests and has all its blocks back."""
    latest: dict[int, EngineStats] = {}

    def hear(events: list[Event], stats: EngineStats) -> None:
        if stats.running == stats.waiting == stats.held == 0 and stats.step_s == 0.0:
            latest[stats.engine] = stats

    group.subscribe(hear)
    await until(lambda: len(latest) == engines, 30.0)
    for stats in latest.values():
        assert stats.blocks_free + stats.blocks_cached == stats.blocks_total
        assert stats.leaked_blocks == 0


def prompt_of(seed: int, length: int = 10) -> list[int]:
    draw = random.Random(seed)
    return [draw.randrange(50) for _ in range(length)]


async def read(group: EngineGroup, name: str, prompt: list[int], count: int) -> list[int]:
    tokens: list[int] = []
    finish = None
    (box,) = group.submit([submission(name, prompt, count)])
    async for delta in box:
        assert finish is None
        tokens += delta.tokens
        finish = delta.finish
        assert delta.error is None, delta.error
    assert finish is FinishReason.LENGTH
    return tokens


@pytest.mark.parametrize("engines", [2, 4])
async def test_all_engines_answer_and_give_their_blocks_back(engines: int) -> None:
    used: set[int] = set()

    def hear(events: list[Event], stats: EngineStats) -> None:
        if any(isinstance(event, TokensOut) for event in events):
            used.add(stats.engine)

    async with fakes(engines) as group:
        group.subscribe(hear)
        reads = [read(group, str(i), prompt_of(i), 30) for i in range(4 * engines)]
        boxes = group.submit([submission(f"gone {i}", prompt_of(i), 200) for i in range(engines)])
        await anext(boxes[0])
        group.abort(["gone 0"])
        for box in boxes[1:]:
            await box.aclose()
        expected = [continuation(prompt_of(i), 30) for i in range(4 * engines)]
        assert await asyncio.gather(*reads) == expected
        assert used == set(range(engines))
        assert [delta.finish async for delta in boxes[0]][-1] is FinishReason.ABORT
        await balanced(group, engines)


async def test_a_session_returns_to_its_cache_and_siblings_stay_together() -> None:
    at: dict[str, int] = {}

    def hear(events: list[Event], stats: EngineStats) -> None:
        at.update((event.id, stats.engine) for event in events if isinstance(event, TokensOut))

    async with fakes(4) as group:
        group.subscribe(hear)
        histories = [prompt_of(i, 40) for i in range(6)]
        for turn in range(3):
            for i, history in enumerate(histories):
                history += await read(group, f"{i}/{turn}", history, 12)
        homes = [{at[f"{i}/{turn}"] for turn in range(3)} for i in range(6)]
        assert all(len(home) == 1 for home in homes)
        assert len(set.union(*homes)) == 4
        assert group.stats().prefix_hits > 6 * 2 * 36
        siblings = [submission(f"n{i}", prompt_of(9), 8, group="n", choice=i) for i in range(3)]
        for box in group.submit(siblings):
            assert [delta.finish async for delta in box][-1] is FinishReason.LENGTH
        assert len({at[f"n{i}"] for i in range(3)}) == 1


async def trouble(group: EngineGroup, moments: int, number: int, seed: int) -> None:
    """Signal a random engine, be it serving or starting, at random moments."""
    draw = random.Random(seed)
    while moments:
        await asyncio.sleep(draw.uniform(0.02, 0.6))
        with suppress(psutil.NoSuchProcess, IndexError):
            engine = psutil.Process(draw.choice(list(group.processes().values())))
            if engine.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
                engine.send_signal(number)
                moments -= 1


async def survive(engines: int, moments: int, number: int, seed: int) -> None:
    """Streams of all lengths go on while engines die; every token comes, once."""
    async with fakes(engines) as group:
        over = asyncio.create_task(trouble(group, moments, number, seed))
        draw = random.Random(seed)

        async def client(name: int) -> None:
            turn = 0
            while not over.done() or turn < 2:
                prompt, count = prompt_of(draw.randrange(10**6), draw.randint(1, 60)), 0
                count = draw.randint(1, 150)
                tokens = await read(group, f"{name}/{turn}", prompt, count)
                assert tokens == continuation(prompt, count)
                turn += 1

        await asyncio.gather(over, *(client(i) for i in range(3 * engines)))
        await balanced(group, engines)


@pytest.mark.parametrize(("engines", "moments"), [(2, 6), (1, 2)])
async def test_requests_survive_killed_engines(engines: int, moments: int) -> None:
    await survive(engines, moments, signal.SIGKILL, seed=engines)


async def test_requests_survive_a_stopped_engine() -> None:
    await survive(2, 1, signal.SIGSTOP, seed=5)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("engines", "number"),
    [(1, signal.SIGKILL), (2, signal.SIGKILL), (4, signal.SIGKILL), (4, signal.SIGSTOP)],
)
async def test_requests_survive_fifty_moments(engines: int, number: int) -> None:
    await survive(engines, 50, number, seed=engines)


async def test_a_hung_step_is_found_and_its_engine_replaced() -> None:
    async with fakes(2) as group:
        warm = [read(group, f"warm {i}", prompt_of(i), 5) for i in range(4)]
        await asyncio.gather(*warm)
        before = set(group.processes().values())
        asked = [[HANG, *prompt_of(i)] for i in range(2)]  # one goes to engine 0
        began = time.monotonic()
        reads = [read(group, f"hang {i}", prompt, 20) for i, prompt in enumerate(asked)]
        answers = asyncio.gather(*reads)

        def says_so() -> bool:
            try:
                group.check_health(1.0)
            except EngineStuckError as error:
                return bool(re.search(r"Engine 0 made no progress .* running step \d+", str(error)))
            return False

        await until(says_so, 15.0)
        await until(lambda: set(group.processes().values()) != before, 15.0)
        assert time.monotonic() - began > 4.0
        (wrong,) = group.check_health(60.0)
        assert "Engine 0" in wrong
        assert "stuck running step" in wrong
        assert await answers == [continuation(prompt, 20) for prompt in asked]
        await balanced(group, 2)


async def test_one_engine_comes_back_and_health_tells_of_it() -> None:
    async with fakes(1) as group:
        reading = asyncio.create_task(read(group, "a", prompt_of(1), 200))
        await until(lambda: group.stats().running == 1)
        os.kill(group.processes()["engine"], signal.SIGKILL)

        def restarting() -> bool:
            try:
                group.check_health(60.0)
            except EngineStuckError as error:
                return "Engine 0 is restarting" in str(error) and "SIGKILL" in str(error)
            return False

        await until(restarting)
        late = asyncio.create_task(read(group, "b", prompt_of(2), 5))
        (out_of_time,) = group.submit(
            [submission("c", prompt_of(3), 5, deadline_s=time.monotonic() + 0.01)]
        )
        (left,) = group.submit([submission("d", prompt_of(4), 5)])
        await left.aclose()
        assert [delta.finish async for delta in out_of_time] == [FinishReason.TIMEOUT]
        assert await reading == continuation(prompt_of(1), 200)
        assert await late == continuation(prompt_of(2), 5)
        assert group.check_health(60.0) == []
        await balanced(group, 1)
        assert group.stats().restarts == 1


async def test_a_request_that_ends_engines_ends_itself() -> None:
    async with fakes(2, Restarts(most=20, backoff_s=0.01, crashes=1)) as group:
        (box,) = group.submit([submission("bad", [CRASH], 5)])
        with pytest.raises(EngineDeadError, match="exit code 3"):
            await anext(box)
        assert await read(group, "good", prompt_of(1), 20) == continuation(prompt_of(1), 20)


async def test_engines_that_cannot_come_back_are_given_up() -> None:
    async with fakes(1, Restarts(most=0)) as group:
        begun, waiting = group.submit([submission(i, prompt_of(1), 300) for i in "ab"])
        await anext(begun)
        os.kill(group.processes()["engine"], signal.SIGKILL)
        last: Any = None
        async for delta in begun:
            last = delta
        assert last.finish is FinishReason.ERROR
        assert "SIGKILL" in last.error["message"]
        await waiting.aclose()
        with pytest.raises(EngineDeadError):
            group.check_health(60.0)
        with pytest.raises(EngineDeadError):
            group.submit([submission("c", [5], 1)])


async def test_a_start_that_fails_leaves_nothing() -> None:
    me = psutil.Process()
    before = (me.num_fds(), len(me.children()))
    group = EngineGroup(config(3), (sys.executable, "-c", "raise SystemExit(7)"))
    with pytest.raises(EngineDeadError, match="exit code 7"):
        await group.start()
    await group.close()
    assert (me.num_fds(), len(me.children())) == before


PARENT = """
import asyncio, sys
from tests.engine.test_group import EngineGroup, FAKE, HANG, config, submission
import tempfile

async def main():
    tempfile.tempdir = sys.argv[1]
    group = EngineGroup(config(2), FAKE)
    await group.start()
    boxes = [group.submit([submission(str(i), [HANG], 9)]) for i in range(2)]
    print(*group.processes().values(), flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a stopped engine cannot know")
def test_engines_end_with_their_parent_even_stopped_or_within_a_hung_step(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        engines = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        engines[1].send_signal(signal.SIGSTOP)
        parent.kill()
    gone, alive = psutil.wait_procs(engines, timeout=5)
    assert (len(gone), alive) == (2, [])
    assert list(tmp_path.iterdir()) == []


LENGTH = 60


async def test_models_give_the_oracles_tokens_across_crashes(tiny: Path) -> None:
    """Greedy ids equal transformers'; a seeded draw goes on as if nothing had happened."""
    group = EngineGroup(config(2, tiny), restarts=ALWAYS)
    try:
        await group.start()
        asked = oracle.prompts(0, 6, 320)
        fields: list[dict[str, Any]] = [{"temperature": 0.0} for _ in asked]
        fields.append({"temperature": 0.9, "seed": 7, "presence_penalty": 0.5, "min_tokens": 9})
        asked.append(asked[5])

        async def run(i: int, name: str) -> list[int]:
            (box,) = group.submit([submission(f"{name}{i}", asked[i], LENGTH, **fields[i])])
            return [token async for delta in box for token in delta.tokens]

        expected = [oracle.greedy(tiny, prompt, LENGTH) for prompt in asked[:6]]
        expected.append(await run(6, "calm"))
        runs = [asyncio.create_task(run(i, "crash")) for i in range(7)]
        await until(lambda: group.stats().running > 0)
        await asyncio.sleep(0.05)
        os.kill(group.processes()["engine 0"], signal.SIGKILL)
        assert await asyncio.gather(*runs) == expected
        assert group.stats().restarts == 1
    finally:
        await group.close()
