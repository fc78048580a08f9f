"""Everything on at once, for a while: random requests, some of whose clients leave, engines that
are killed; at the end the books balance and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from penstock.engine.group import EngineGroup, Restarts
from penstock.llm.async_llm import AsyncLLM
from tests.composition.asking import Oracle, Program, ask, configure, leave, running
from tests.composition.conftest import ENGINE
from tests.composition.rows import BY_NAME, Row
from tests.engine.test_group import balanced

OF_REQUESTS = [name for name, feature in BY_NAME.items() if feature.request]
ALL_ON: Row = frozenset(BY_NAME) - {"int4"}
"""int4 is the other choice of its option"""
CLIENTS = 12
KILL_EVERY_S = 30.0
PATIENT = Restarts(most=1000, crashes=1000)


@contextmanager
def nothing_left(folder: Path) -> Iterator[None]:
    """No process, file, segment of shared memory or temporary folder more than before."""
    me = psutil.Process()
    gc.collect()
    children, files = set(me.children(recursive=True)), me.num_fds()
    segments = set(os.listdir("/dev/shm"))
    usual, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = usual
    gc.collect()
    left = set(me.children(recursive=True)) - children
    assert psutil.wait_procs(left, timeout=5)[1] == []
    assert me.num_fds() <= files
    assert set(os.listdir("/dev/shm")) <= segments
    assert os.listdir(folder) == []


async def soak(plain: Oracle, row: Row, seconds: float, program: Program, folder: Path) -> None:
    cases = await plain.cases(row)
    draw = random.Random(0)
    config = configure(plain.folder, row)
    end = float("inf")
    kills = 0

    async def client(llm: AsyncLLM) -> None:
        while True:
            index = draw.randrange(len(cases))
            if draw.random() < 0.2:
                await leave(llm, cases[index].prompt, draw.random() < 0.5)
            used = frozenset(name for name in OF_REQUESTS if draw.random() < 0.5)
            await ask(llm, used & row, index, cases[index], everywhere=True)
            if time.monotonic() > end:
                return

    async def trouble(group: EngineGroup) -> None:
        nonlocal kills
        while time.monotonic() + KILL_EVERY_S < end:
            await asyncio.sleep(KILL_EVERY_S)
            os.kill(draw.choice(list(group.processes().values())), signal.SIGKILL)
            kills += 1

    with nothing_left(folder):
        async with running(config, program, PATIENT) as llm:
            group = llm.client
            assert isinstance(group, EngineGroup)
            end = time.monotonic() + seconds
            await asyncio.gather(trouble(group), *(client(llm) for _ in range(CLIENTS)))
            await balanced(group, config.engine.data_parallel_size)
            assert group.stats().restarts == kills


@pytest.mark.slow
async def test_everything_on_for_a_moment(plain: Oracle, program: Program, tmp_path: Path) -> None:
    await soak(plain, ALL_ON, 3.0, program, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(7200)
async def test_everything_on(plain: Oracle, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Ten minutes, or as --soak-seconds says, in processes as users start them."""
    seconds = request.config.getoption("--soak-seconds")
    await soak(plain, ALL_ON, seconds, (sys.executable, *ENGINE), tmp_path)
