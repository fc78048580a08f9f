"""Server-sent events, and the one rule about clients who leave: their work is cancelled at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from penstock.errors import DeadlineError, PenstockError
from penstock.web.errors import as_typed, error_body

T = TypeVar("T")

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"

HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""Neither caches nor nginx may hold events back."""


class ClientGone(Exception):
    """The client closed the connection; nobody reads what is sent now."""


def frame(content: Any) -> bytes:
    """One event with `content` as JSON."""
    return b"data: " + msgspec.json.encode(content) + b"\n\n"


def named_frame(name: str, content: Any) -> bytes:
    """One event with a name."""
    return b"event: " + name.encode() + b"\n" + frame(content)


async def unless_gone(receive: Receive, work: Awaitable[T], timeout_s: float | None = None) -> T:
    """Await `work`, cancelling it (and awaiting its clean-up) when the client leaves.

    The request's body must have been read. Raises ClientGone, and DeadlineError when neither
    happens within `timeout_s`.
    """
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_disconnect(receive))
    try:
        both = {task, watcher}
        await asyncio.wait(both, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if watcher.done():
            raise ClientGone
        raise DeadlineError(
            "The request's deadline passed without an answer from the engine.",
            cure="Look at /health; send the request again.",
        )
    finally:
        for pending in (watcher, task):
            pending.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await pending


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Sends the frames of an async generator; an error on the way becomes the last event.

    `first` was taken from the generator before the status was decided, so that whatever is refused
    at once is refused with its own status. The generator is closed before this returns. timeout_s
    bounds the whole, for a generator that says nothing more. After keep_alive_s of silence a
    comment goes out, so that nothing on the way takes the connection for dead.
    """

    def __init__(
        self,
        first: bytes,
        frames: AsyncGenerator[bytes, None],
        headers: Mapping[str, str],
        on_error: Callable[[PenstockError], None] = lambda error: None,
        timeout_s: float | None = None,
        keep_alive_s: float = 15.0,
    ) -> None:
        self.first, self.frames = first, frames
        self.on_error, self.timeout_s = on_error, timeout_s
        self.keep_alive_s = keep_alive_s
        self.status_code, self.media_type, self.background = 200, "text/event-stream", None
        self.init_headers({**HEADERS, **headers})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(ClientGone, OSError):
            try:
                await unless_gone(receive, self._send(send), self.timeout_s)
            except DeadlineError as error:
                await unless_gone(receive, _send_body(send, self._last_words(error), more=False))

    async def _send(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        loop = asyncio.get_running_loop()
        self._sent_s = loop.time()
        comments = asyncio.ensure_future(self._keep_alive(send))
        try:
            await send(start)
            data = self.first
            while data:
                await _send_body(send, data)
                self._sent_s = loop.time()
                data = await self._next()
            comments.cancel()
            await _send_body(send, b"", more=False)
        finally:
            comments.cancel()
            await self.frames.aclose()

    async def _keep_alive(self, send: Send) -> None:
        now = asyncio.get_running_loop().time
        with suppress(OSError):  # nobody is there: the stream itself finds out
            while True:
                await asyncio.sleep(max(0.0, self._sent_s + self.keep_alive_s - now()))
                if now() >= self._sent_s + self.keep_alive_s:
                    self._sent_s = now()
                    await _send_body(send, KEEP_ALIVE)

    async def _next(self) -> bytes:
        try:
            return await anext(self.frames, b"")
        except Exception as error:
            return self._last_words(error)

    def _last_words(self, error: Exception) -> bytes:
        typed = as_typed(error)
        self.on_error(typed)
        return frame(error_body(typed)) + DONE


async def _send_body(send: Send, data: bytes, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})
