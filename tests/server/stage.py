"""The application over a scripted engine client, and a client that talks to it in process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import msgspec

from penstock.config import Config
from penstock.server.app import create_app
from penstock.server.service import Service
from tests import vocabularies
from tests.llm.fake_client import FakeClient, Script, llm_over, saying

TOKENIZER = vocabularies.byte_level()
MESSAGES = [{"role": "user", "content": "Hello"}]
CHAT: dict[str, Any] = {"messages": MESSAGES}
TEXT: dict[str, Any] = {"prompt": "Once upon"}


class Stage:
    """service, the fake engine's client, and `http`."""

    def __init__(self, script: Script, http: httpx.AsyncClient, service: Service) -> None:
        self.client = FakeClient(script)
        self.http = http
        self.service = service

    async def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post(path, content=data, headers=names)

    async def chat(self, **fields: Any) -> httpx.Response:
        return await self.post("/v1/chat/completions", {**CHAT, **fields})

    async def complete(self, **fields: Any) -> httpx.Response:
        return await self.post("/v1/completions", {**TEXT, **fields})


@asynccontextmanager
async def stage(
    script: Script | str = "wood", loaded: bool = True, **server: Any
) -> AsyncIterator[Stage]:
    """script: what the engine answers, or the text that it always says, a token a delta.
    server: options of the server's configuration."""
    config = Config()
    config = replace(config, server=replace(config.server, **server))
    service = Service(config)
    transport = httpx.ASGITransport(create_app(service), raise_app_exceptions=False)
    if isinstance(script, str):
        script = saying(TOKENIZER, script)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        made = Stage(script, http, service)
        if loaded:
            service.open(llm_over(made.client, TOKENIZER))
        try:
            yield made
        finally:
            await service.close()  # its threads end with it


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error object, checked for its shape."""
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def events(response: httpx.Response) -> list[Any]:
    """The JSON of a stream's events; asserts that it ends with [DONE]."""
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = response.text.split("\n\n")
    assert lines.pop() == ""
    assert lines.pop() == "data: [DONE]"
    return [msgspec.json.decode(line.removeprefix("data: ")) for line in lines]
