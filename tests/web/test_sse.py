from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from penstock.errors import DeadlineError, EngineDeadError
from penstock.web.sse import DONE, KEEP_ALIVE, ClientGone, EventStream, frame, unless_gone
from tests.waiting import until


class Client:
    """The ASGI side of a client: keeps what is sent, leaves when told to."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.gone = asyncio.Event()

    async def receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.messages.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(m.get("body", b"") for m in self.messages)


class Source:
    """A generator of frames that remembers whether it was cleaned up."""

    def __init__(self, frames: list[bytes], error: Exception | None = None, hang: bool = False):
        self.frames, self.error, self.hang = frames, error, hang
        self.closed = False

    async def run(self) -> AsyncGenerator[bytes, None]:
        try:
            for data in self.frames:
                yield data
            if self.error:
                raise self.error
            if self.hang:
                await asyncio.Event().wait()
        finally:
            self.closed = True


async def _stream(source: Source, client: Client) -> None:
    frames = source.run()
    first = await anext(frames)
    await EventStream(first, frames, {"X-Request-Id": "r1"})({}, client.receive, client.send)


def test_a_frame_is_one_line_of_json() -> None:
    assert frame({"a": "line\nbreak"}) == b'data: {"a":"line\\nbreak"}\n\n'


async def test_frames_go_out_as_they_come() -> None:
    client, source = Client(), Source([b"1", b"2", b"3"])
    await _stream(source, client)
    start = client.messages[0]
    headers = dict(start["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert headers[b"cache-control"] == b"no-cache"
    assert headers[b"x-request-id"] == b"r1"
    assert [m["body"] for m in client.messages[1:]] == [b"1", b"2", b"3", b""]
    assert [m["more_body"] for m in client.messages[1:]] == [True, True, True, False]
    assert source.closed


async def test_an_error_on_the_way_is_the_last_event() -> None:
    client, source = Client(), Source([b"1"], EngineDeadError("The engine died.", cure="Wait."))
    await _stream(source, client)
    assert client.body.startswith(b'1data: {"error":{"message":"The engine died. Wait."')
    assert client.body.endswith(DONE)
    assert client.messages[-1]["more_body"] is False


async def test_a_timeout_error_of_the_source_is_no_disconnect() -> None:
    """TimeoutError is an OSError, which is also what sending to a closed connection raises."""
    client, source = Client(), Source([b"1"], TimeoutError("late"))
    await _stream(source, client)
    assert b'"error"' in client.body


async def test_a_client_who_leaves_closes_the_source_at_once() -> None:
    client, source = Client(), Source([b"1"], hang=True)
    streaming = asyncio.create_task(_stream(source, client))
    await asyncio.sleep(0.01)
    assert not source.closed
    client.gone.set()
    await asyncio.wait_for(streaming, 1.0)
    assert source.closed


async def test_a_client_who_stops_reading_can_still_leave() -> None:
    """The source is then suspended in a yield, where cancelling a task does not reach it."""
    client, source = Client(), Source([b"1", b"2"])

    async def stuck(message: Any) -> None:
        await asyncio.Event().wait()

    frames = source.run()
    stream = EventStream(await anext(frames), frames, {})
    sending = asyncio.create_task(stream({}, client.receive, stuck))
    await asyncio.sleep(0.01)
    client.gone.set()
    await asyncio.wait_for(sending, 1.0)
    assert source.closed


async def test_a_source_that_falls_silent_ends_at_the_deadline() -> None:
    client, source = Client(), Source([b"1"], hang=True)
    frames = source.run()
    stream = EventStream(await anext(frames), frames, {}, timeout_s=0.02)
    await asyncio.wait_for(stream({}, client.receive, client.send), 1.0)
    assert b'"code":"deadline_exceeded"' in client.body
    assert client.body.endswith(DONE)
    assert client.messages[-1]["more_body"] is False
    assert source.closed


async def test_silence_is_kept_alive_by_comments() -> None:
    client, source = Client(), Source([b"1"], hang=True)
    frames = source.run()
    stream = EventStream(await anext(frames), frames, {}, keep_alive_s=0.005)
    sending = asyncio.create_task(stream({}, client.receive, client.send))
    await until(lambda: client.body.count(KEEP_ALIVE) >= 2)
    client.gone.set()
    await asyncio.wait_for(sending, 10.0)
    assert client.body.startswith(b"1" + KEEP_ALIVE)


async def test_unless_gone_returns_raises_and_cancels() -> None:
    client = Client()

    async def answer() -> int:
        return 3

    assert await unless_gone(client.receive, answer()) == 3

    async def fail() -> int:
        raise KeyError

    with pytest.raises(KeyError):
        await unless_gone(client.receive, fail())
    with pytest.raises(DeadlineError):
        await unless_gone(client.receive, asyncio.sleep(60), timeout_s=0.01)
    client.gone.set()
    with pytest.raises(ClientGone):
        await unless_gone(client.receive, asyncio.sleep(60), timeout_s=60)
