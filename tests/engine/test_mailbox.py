from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock.core.events import (
    Event,
    Finished,
    PromptLogprobs,
    Queued,
    Scheduled,
    TokensOut,
)
from penstock.core.plan import TokenLogprobs
from penstock.core.request import FinishReason
from penstock.engine.client import EngineStats
from penstock.engine.mailbox import Mailboxes
from penstock.errors import (
    ContextLengthError,
    EngineDeadError,
    EngineError,
    EngineStuckError,
    InvalidFieldError,
)
from tests.fakes import submission


def finished(request_id: str, reason: FinishReason, error: Any = None) -> Finished:
    return Finished(request_id, 0.0, reason, 1, 1, 0, 0, error=error)


class Rig:
    def __init__(self) -> None:
        self.aborted: list[str] = []
        self.boxes = Mailboxes(lambda ids, reason: self.aborted.extend(ids))

    def say(self, *events: Event, step: int = 1, running: int = 1) -> None:
        self.boxes.deliver(list(events), EngineStats(at=0.0, step=step, running=running))


def tokens(request_id: str, *ids: int) -> TokensOut:
    return TokensOut(request_id, 0.0, 0, list(ids))


async def test_deltas_merge_while_the_reader_is_slow() -> None:
    rig = Rig()
    (box,) = rig.boxes.open([submission("a", [1])])
    rig.say(Scheduled("a", 0.0, 0, 7, False), tokens("a", 1))
    rig.say(tokens("a", 2), tokens("a", 3))
    first = await anext(box)
    assert (first.tokens, first.cached_tokens, first.finish) == ([1, 2, 3], 7, None)
    rig.say(tokens("a", 4), finished("a", FinishReason.LENGTH))
    last = await anext(box)
    assert (last.tokens, last.finish) == ([4], FinishReason.LENGTH)
    with pytest.raises(StopAsyncIteration):
        await anext(box)
    assert not rig.aborted


async def test_closing_early_aborts_and_later_events_are_ignored() -> None:
    rig = Rig()
    (box,) = rig.boxes.open([submission("a", [1])])
    await box.aclose()
    await box.aclose()
    rig.say(tokens("a", 1), finished("a", FinishReason.ABORT))
    assert rig.aborted == ["a"]


async def test_cancelling_the_reader_aborts() -> None:
    rig = Rig()
    (box,) = rig.boxes.open([submission("a", [1])])
    reader = asyncio.create_task(anext(box))
    await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert rig.aborted == ["a"]


async def test_a_refusal_is_raised_and_a_later_failure_is_a_delta() -> None:
    rig = Rig()
    refused, failed = rig.boxes.open([submission("a", [1]), submission("b", [1])])
    error = ContextLengthError("too long", param="prompt").to_dict()
    rig.say(finished("a", FinishReason.ERROR, error))
    with pytest.raises(ContextLengthError, match="too long"):
        await anext(refused)
    rig.say(tokens("b", 5))
    await anext(failed)
    rig.say(finished("b", FinishReason.ERROR, EngineError("broke").to_dict()))
    delta = await anext(failed)
    assert delta.finish is FinishReason.ERROR
    assert delta.error is not None
    assert delta.error["message"] == "broke"


async def test_prompt_logprobs_come_whole_with_the_first_tokens() -> None:
    def logprob(token: int) -> TokenLogprobs:
        return TokenLogprobs(token, -1.0, 1, [], [])

    rig = Rig()
    (box,) = rig.boxes.open([submission("a", [1])])
    rig.say(PromptLogprobs("a", 1, [logprob(1), logprob(2)]))
    rig.say(PromptLogprobs("a", 1, [logprob(1)]), PromptLogprobs("a", 2, [logprob(2), logprob(3)]))
    rig.say(tokens("a", 9))
    delta = await anext(box)
    assert delta.prompt_logprobs is not None
    assert [p.token for p in delta.prompt_logprobs] == [1, 2, 3]


async def test_an_id_in_use_is_refused_here_so_that_the_first_one_is_unharmed() -> None:
    rig = Rig()
    rig.boxes.open([submission("a", [1])])
    with pytest.raises(InvalidFieldError):
        rig.boxes.open([submission("a", [2])])


async def test_when_the_engine_dies_all_readers_hear_of_it() -> None:
    rig = Rig()
    waiting, begun = rig.boxes.open([submission("a", [1]), submission("b", [1])])
    rig.say(tokens("b", 1))
    await anext(begun)
    rig.boxes.bury(EngineDeadError("gone"))
    with pytest.raises(EngineDeadError):
        await anext(waiting)
    assert (await anext(begun)).finish is FinishReason.ERROR
    with pytest.raises(EngineDeadError):
        rig.boxes.open([submission("c", [1])])
    with pytest.raises(EngineDeadError):
        rig.boxes.check_health(10)


async def test_health_is_forward_progress() -> None:
    rig = Rig()
    rig.boxes.check_health(0.0)
    rig.boxes.open([submission("a", [1])])
    await asyncio.sleep(0.02)
    with pytest.raises(EngineStuckError, match="1 requests open"):
        rig.boxes.check_health(0.01)
    rig.say(tokens("a", 1))
    rig.boxes.check_health(1.0)
    await asyncio.sleep(0.02)
    rig.say(step=1)
    with pytest.raises(EngineStuckError, match="running a step"):
        rig.boxes.check_health(0.01)


async def test_sinks_see_every_step() -> None:
    rig = Rig()
    seen: list[int] = []
    rig.boxes.subscribe(lambda events, stats: seen.append(stats.step))
    rig.say(step=4)
    assert seen == [4]


async def test_the_predicted_time_comes_with_the_first_delta() -> None:
    rig = Rig()
    (box,) = rig.boxes.open([submission("a", [1])])
    told = [Queued("a", 1.0, 1, predicted_ttft_s=0.25), TokensOut("a", 1.2, 0, [7])]
    rig.boxes.deliver([*told, finished("a", FinishReason.LENGTH)], EngineStats(at=1.2))
    assert [delta.predicted_ttft_s async for delta in box] == [0.25]
