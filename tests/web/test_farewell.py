from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from penstock.web.farewell import Farewell, after

heard: list[str] = []


async def answer(request: Request) -> Response:
    after(request, lambda: heard.append("through"))
    heard.append("answered")
    return PlainTextResponse("x")


async def fail(request: Request) -> Response:
    after(request, lambda: heard.append("through"))
    raise ValueError("a bug")


@pytest.mark.parametrize("path", ["/", "/fail"])
async def test_told_when_a_reply_is_through(path: str) -> None:
    heard.clear()
    app = Farewell(Starlette(routes=[Route("/", answer), Route("/fail", fail)]))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        await client.get(path)
    assert heard[-1] == "through"
