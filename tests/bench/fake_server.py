"""A scripted OpenAI-style server on a real socket: it sends what a test tells it to."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

Body = dict[str, Any]
Reply = tuple[int, Any]
"""Status, and the JSON body or (for a stream) an async iterator of pieces."""


class FakeServer:
    """`complete(path, body)` answers POSTs; GETs come from `pages`."""

    def __init__(self, complete: Callable[[str, Body], Reply]) -> None:
        self.complete = complete
        self.pages: dict[str, Any] = {"/v1/models": {"data": [{"id": "fake"}]}}
        self.bodies: list[Body] = []
        self.writers: list[asyncio.StreamWriter] = []
        """one a connection"""
        self.close_after_reply = False

    async def __aenter__(self) -> FakeServer:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for writer in self.writers:
            writer.close()
        await asyncio.sleep(0.01)  # lets the serving tasks see it

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while not writer.is_closing():
                await self._serve(reader, writer)
                if self.close_after_reply:
                    writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, path, *_ = head.split(" ")
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
        text = await reader.readexactly(int(headers.get("Content-Length", 0)))
        if method == "GET":
            known = path in self.pages
            status, content = (200, self.pages[path]) if known else (404, {"detail": "none"})
        else:
            self.bodies.append(json.loads(text))
            status, content = self.complete(path, self.bodies[-1])
        head = f"HTTP/1.1 {status} x\r\n"
        if not isinstance(content, AsyncIterator):
            whole = json.dumps(content)
            writer.write(f"{head}Content-Length: {len(whole)}\r\n\r\n{whole}".encode())
            return
        writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        async for piece in content:
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()
        writer.write(b"0\r\n\r\n")


def event(data: Any) -> bytes:
    return b"data: %s\n\n" % (data if isinstance(data, bytes) else json.dumps(data).encode())


async def tokens(body: Body, gap_s: float = 0.0, cached: int = 0) -> AsyncIterator[bytes]:
    """A well-behaved stream: one chunk a token, usage, the end."""
    for index in range(body["max_tokens"]):
        await asyncio.sleep(gap_s)
        ids = {"token_ids": [index]} if body.get("return_token_ids") else {}
        yield event({"choices": [{"index": 0, "text": " x"} | ids]})
    count = len(body["prompt"]) if isinstance(body.get("prompt"), list) else 7
    usage = {"prompt_tokens": count, "completion_tokens": body["max_tokens"]}
    if body.get("stream_options"):
        details = {"prompt_tokens_details": {"cached_tokens": cached}}
        yield event({"choices": [], "usage": usage | details})
    yield event(b"[DONE]")
