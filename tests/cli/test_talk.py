from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from penstock.cli.talk import Local, Remote
from penstock.errors import ConfigError, ModelNotFoundError, PenstockError, UnavailableError
from tests import vocabularies
from tests.bench.fake_server import Body, FakeServer, Reply, event
from tests.llm.fake_client import FakeClient, llm_over, saying

TOKENIZER = vocabularies.byte_level()
ASKED = [{"role": "user", "content": "Hello"}]


async def stream(*events: Any) -> AsyncIterator[bytes]:
    for item in events:
        yield event(item)


def says(text: str) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}}]}


def good(path: str, body: Body) -> Reply:
    role = {"choices": [{"delta": {"role": "assistant", "content": None}}]}
    return 200, stream(role, says("Good "), says("day"), {"choices": []}, b"[DONE]")


def refuses(status: int, content: Any) -> Any:
    return lambda path, body: (status, content)


async def read(remote: Remote) -> str:
    return "".join([piece async for piece in remote.reply(ASKED, {"temperature": 0})])


async def test_the_answer_comes_in_pieces() -> None:
    async with FakeServer(good) as server:
        remote = await Remote.start(server.url + "/v1", None, None)
        pieces = [piece async for piece in remote.reply(ASKED, {"temperature": 0})]
        await remote.close()
    assert [piece for piece in pieces if piece] == ["Good ", "day"]
    assert server.bodies == [{"model": "fake", "messages": ASKED, "stream": True, "temperature": 0}]


async def test_leaving_early_closes_the_connection() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield event(says("on "))

    async with FakeServer(lambda path, body: (200, endless())) as server:
        remote = await Remote.start(server.url, None, None)
        reply = remote.reply(ASKED, {})
        assert await anext(reply) == "on "
        await reply.aclose()
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(server.writers[0].wait_closed(), 10)
        await remote.close()


@pytest.mark.parametrize(
    ("answer", "kind", "cause"),
    [
        (refuses(401, {"error": {"message": "no key"}}), ConfigError, "no key.*--api-key"),
        (refuses(429, {"error": {"message": "full"}}), UnavailableError, "429: full"),
        (refuses(500, "oh"), PenstockError, "500"),
        (lambda p, b: (200, stream({"error": {"message": "broke"}})), PenstockError, "broke"),
    ],
)
async def test_errors_of_the_server_are_told(
    answer: Any, kind: type[PenstockError], cause: str
) -> None:
    async with FakeServer(answer) as server:
        remote = await Remote.start(server.url, None, None)
        with pytest.raises(kind, match=cause):
            await read(remote)
        await remote.close()


async def test_a_model_that_is_not_served() -> None:
    async with FakeServer(good) as server:
        with pytest.raises(ModelNotFoundError, match="It serves fake"):
            await Remote.start(server.url, None, "other")


async def test_a_server_without_models() -> None:
    async with FakeServer(good) as server:
        server.pages["/v1/models"] = {"data": []}
        with pytest.raises(ModelNotFoundError, match="lists no models"):
            await Remote.start(server.url, None, None)


async def test_no_server() -> None:
    async with FakeServer(good) as server:
        url = server.url
    with pytest.raises(UnavailableError, match="No server answers"):
        await Remote.start(url, None, None)


# In this process


def local(text: str = "Good day") -> tuple[Local, FakeClient]:
    client = FakeClient(saying(TOKENIZER, text), max_model_len=200)
    return Local(llm_over(client, TOKENIZER), "fake"), client


async def test_a_local_model_answers_in_pieces() -> None:
    partner, client = local()
    pieces = [p async for p in partner.reply(ASKED, {"temperature": 0.0, "max_tokens": 50})]
    assert "".join(pieces) == "Good day"
    assert len(pieces) > 1
    assert client.submissions[0].sampling.temperature == 0
    assert client.submissions[0].sampling.max_tokens == 50
    await partner.close()
    assert client.closed


async def test_without_a_limit_an_answer_may_fill_the_context() -> None:
    partner, client = local()
    _ = [piece async for piece in partner.reply(ASKED, {})]
    (submission,) = client.submissions
    assert submission.sampling.max_tokens == 200 - len(submission.prompt)


async def test_leaving_a_local_model_early_aborts() -> None:
    partner, client = local()
    reply = partner.reply(ASKED, {})
    await anext(reply)
    await reply.aclose()
    assert len(client.aborts) == 1
