"""An ASGI app as the handler of a batch: the server's own code answers, without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.types import ASGIApp, Message, Scope

from penstock.jobs.runner import Reply


class AppHandler:
    """Calls `app` as the server would for `POST url` with a JSON body.

    Raises what the app raises past its own error handling.
    """

    def __init__(self, app: ASGIApp, scope: Mapping[str, Any] | None = None) -> None:
        """scope: what is added to the ASGI scope of each call."""
        self._app = app
        self._extra = dict(scope or {})

    async def __call__(self, url: str, body: dict[str, Any]) -> Reply:
        sent = msgspec.json.encode(body)
        requests: list[Message] = [{"type": "http.request", "body": sent, "more_body": False}]
        answer = bytearray()
        start: Message = {"status": 500, "headers": []}

        never: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

        async def receive() -> Message:
            if requests:
                return requests.pop()
            # Whoever waits for a disconnect after the body must not be told of one.
            return await never

        async def send(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
            else:
                answer.extend(message.get("body", b""))

        try:
            await self._app({**_scope(url, len(sent)), **self._extra}, receive, send)
        except Exception:
            if not answer:  # Starlette raises a fault again after it has answered with a 500
                raise
        headers = {name.lower(): value for name, value in start["headers"]}
        request_id = headers.get(b"x-request-id", b"").decode("latin-1")
        return Reply(start["status"], request_id, _object(bytes(answer)))


def _scope(url: str, length: int) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": url,
        "raw_path": url.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [
            (b"host", b"batch"),
            (b"content-type", b"application/json"),
            (b"content-length", str(length).encode()),
        ],
        "client": ("batch", 0),
        "server": ("batch", 80),
    }


def _object(body: bytes) -> dict[str, Any]:
    """The body if it is a JSON object, else an error body around it."""
    try:
        data = msgspec.json.decode(body)
    except msgspec.DecodeError:
        data = None
    if isinstance(data, dict):
        return data
    return {"error": {"message": body[:200].decode("utf-8", "replace"), "type": "server_error"}}
