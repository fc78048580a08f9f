from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from penstock.bench.client import Exchange, count_errors, encode, exchange
from penstock.bench.http import HttpClient
from tests.bench.fake_server import FakeServer, event, tokens

PATH = "/v1/completions"


async def ask(reply: Any, status: int = 200, timeout_s: float = 5.0, **body: Any) -> Exchange:
    """What the client makes of one reply: a list of pieces, or a JSON body."""
    pieces = stream(reply) if isinstance(reply, list) else reply
    async with FakeServer(lambda path, body: (status, pieces)) as server:
        client = HttpClient(server.url, timeout_s=timeout_s)
        seen = await exchange(client, PATH, encode(body))
        await client.close()
    return seen


async def stream(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def chunk(**choice: Any) -> bytes:
    return event({"choices": [choice]})


DONE = event(b"[DONE]")
LATE = {"code": "timeout", "message": "late"}


async def test_a_stream_of_tokens() -> None:
    usage = {"stream_options": {"include_usage": True}}
    body = {"max_tokens": 4, "prompt": [1, 2, 3]} | usage
    async with FakeServer(lambda path, got: (200, tokens(got, 0.02, cached=2))) as server:
        client = HttpClient(server.url)
        seen = await exchange(client, PATH, encode(body))
        await client.close()
    assert (seen.error, seen.prompt_tokens, seen.cached_tokens) == ("", 3, 2)
    assert seen.output_tokens == 4
    assert len(seen.arrivals_s) == 4
    timeline, gaps = seen.timeline()
    assert timeline.ttft_s is not None
    assert timeline.ttft_s > 0.015
    assert len(gaps) == 3
    assert timeline.longest_stall_s == max(gaps)
    assert timeline.e2e_s >= timeline.ttft_s + sum(gaps)
    assert timeline.tpot_s == pytest.approx((timeline.e2e_s - timeline.ttft_s) / 3)


async def test_chat_chunks_count_when_they_carry_output() -> None:
    seen = await ask(
        [
            chunk(delta={"role": "assistant", "content": ""}),
            chunk(delta={"reasoning_content": "hm"}),
            chunk(delta={"content": "a"}),
            chunk(delta={}, finish_reason="length"),
            DONE,
        ]
    )
    assert (seen.error, seen.output_tokens, seen.finish_reason) == ("", 2, "length")


async def test_token_ids_count_before_text() -> None:
    """A token that is half a character has an id and no text yet."""
    seen = await ask([chunk(text="", token_ids=[5]), chunk(text="é", token_ids=[6, 7]), DONE])
    assert (seen.counts, seen.output_tokens) == ([1, 2], 3)


@pytest.mark.parametrize(
    ("pieces", "error", "detail"),
    [
        ([chunk(text="a"), event({"error": LATE})], "timeout", "late"),
        ([chunk(text="a")], "stream ended early", ""),
        ([], "no stream", ""),
        ([DONE], "no tokens", ""),
        ([event(b"{")], "malformed chunk", "truncated"),
    ],
)
async def test_what_goes_wrong_in_a_stream_is_told(
    pieces: list[bytes], error: str, detail: str
) -> None:
    seen = await ask(pieces)
    assert seen.error == error
    assert detail in seen.detail


async def test_refusals_are_told_by_their_code() -> None:
    seen = await ask({"error": {"code": "queue_full", "message": "full"}}, 429)
    assert (seen.error, seen.detail, seen.status) == ("HTTP 429 queue_full", "full", 429)
    seen = await ask({"detail": "no such page"}, 404)
    assert seen.error == "HTTP 404"
    assert "no such page" in seen.detail
    seen = await ask("text", 500)
    assert seen.error == "HTTP 500"


async def test_an_answer_that_is_no_stream_is_told() -> None:
    seen = await ask({"choices": [{"text": "a whole answer"}]})
    assert seen.error == "no stream"


async def test_no_server_and_no_answer_are_told() -> None:
    client = HttpClient("http://127.0.0.1:9")
    assert (await exchange(client, PATH, b"{}")).error == "ConnectionRefusedError"
    await client.close()

    async def never() -> AsyncIterator[bytes]:
        yield chunk(text="a")
        await asyncio.sleep(1)

    async with FakeServer(lambda path, body: (200, never())) as server:
        client = HttpClient(server.url, timeout_s=0.1)
        assert (await exchange(client, PATH, b"{}")).error == "timeout"
        await client.close()


def test_errors_are_counted_by_cause() -> None:
    seen = [Exchange(error=e) for e in ("", "b", "a", "b")]
    assert count_errors(seen) == {"b": 2, "a": 1}
