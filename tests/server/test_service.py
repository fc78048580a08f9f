from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock.core.request import FinishReason
from penstock.engine.client import Delta
from penstock.errors import ModelNotFoundError, UnavailableError
from penstock.server.service import Service
from tests.server.stage import error_of, stage


async def test_names() -> None:
    async with stage() as s:
        s.service.check_model(None)
        s.service.check_model("demo")
        with pytest.raises(ModelNotFoundError, match="Served: demo"):
            s.service.check_model("other")


def test_nothing_is_served_before_the_model_is_there() -> None:
    from penstock.config import Config

    service = Service(Config())
    assert service.info is None
    service.abort_all()
    with pytest.raises(UnavailableError, match="loading"):
        service.llm()


async def test_abort_all_ends_every_choice_of_every_request() -> None:
    """The end of a drain that took too long."""
    async with stage(lambda sub: [Delta(tokens=[10])] * 10**6) as s:
        asks: list[Any] = [
            asyncio.create_task(s.chat(n=2)),
            asyncio.create_task(s.complete(prompt=["a", "b"], stream=True)),
        ]
        async with asyncio.timeout(30):
            while len(s.client.submissions) < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert s.service.door.live == 4
        s.service.abort_all()
        whole, stream = await asyncio.wait_for(asyncio.gather(*asks), 30.0)
    assert whole.status_code == 503
    assert error_of(whole)["code"] == "draining"
    assert '"code":"draining"' in stream.text
    assert {r for _, r in s.client.aborts} == {FinishReason.ABORT}
    assert s.service.door.live == 0


async def test_a_prompt_that_is_refused_takes_the_others_along() -> None:
    """The second prompt is over the context: the first, already submitted, is aborted."""
    async with stage(lambda sub: [Delta(tokens=[10])]) as s:
        response = await s.complete(prompt=[[5], [5] * 100])
        assert error_of(response)["code"] == "context_length_exceeded"
        assert [name for name, _ in s.client.aborts] == [s.client.submissions[0].id]
        assert s.service.door.live == 0
