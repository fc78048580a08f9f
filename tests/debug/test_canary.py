from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from penstock.debug.canary import PROMPTS, Canary, prompt
from penstock.debug.doctor import examine
from penstock.engine.runner import ModelRunner
from penstock.errors import CanaryError
from penstock.llm import AsyncLLM
from penstock.observe.reader import read
from tests.debug import runs
from tests.drill.faults import broken


def test_prompts_are_fixed() -> None:
    assert prompt(0, 1000)[:3] == prompt(0, 1000)[:3] != prompt(1, 1000)[:3]
    assert all(0 <= token < 50 for number in range(PROMPTS) for token in prompt(number, 50))


def test_a_machine_that_turns_bad_is_found_and_heals(tmp_path: Path) -> None:
    """The second start is held to what the first one wrote."""
    heard: list[bool] = []

    async def first(llm: AsyncLLM) -> None:
        canary = Canary(llm, 60.0, told=heard.append)
        assert await canary.check()
        assert await canary.check()
        canary.check_health()

    async def second(llm: AsyncLLM) -> None:
        canary = Canary(llm, 60.0, copies=2, told=heard.append)
        with broken(ModelRunner, "_run", corrupt):
            assert not await canary.check()
        with pytest.raises(CanaryError, match="Golden prompt 0 came out otherwise from token"):
            canary.check_health()
        assert await canary.check()
        canary.check_health()

    runs.record(tmp_path, first)
    assert len(list(tmp_path.glob("canary-*.json"))) == 1
    runs.record(tmp_path, second)
    assert heard == [True, True, False, True]
    log = read(tmp_path)
    assert [note.kind for _, note in log.notes] == ["canary_failed", "canary_passed"]
    assert log.notes[0][1].data["known"] != log.notes[0][1].data["found"]
    assert {finding.fault for finding in examine(log)} == {"canary-failed"}


def corrupt(run: object) -> object:
    def wrong(self: ModelRunner, plan: object) -> object:
        result = run(self, plan)  # type: ignore[operator]
        result.tokens = [[(ids[0] + 1) % 4096] for ids in result.tokens]
        return result

    return wrong


def test_it_waits_until_the_engine_is_idle(tmp_path: Path) -> None:
    heard: list[bool] = []

    async def script(llm: AsyncLLM) -> None:
        canary = Canary(llm, 0.01, told=heard.append)
        task = asyncio.create_task(canary.run())
        async with asyncio.timeout(60):
            while len(heard) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        task.cancel()

    runs.record(tmp_path, script)
    assert all(heard)
