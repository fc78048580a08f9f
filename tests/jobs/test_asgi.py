from __future__ import annotations

import asyncio
import contextlib

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from penstock.jobs.asgi import AppHandler


async def echo(request: Request) -> Response:
    """Says what came; waits a little for a disconnect, as the server does while it generates."""
    body = await request.json()
    gone = asyncio.ensure_future(request.receive())
    await asyncio.sleep(0.01)
    told = gone.done()
    gone.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await gone
    seen = {"body": body, "gone": told}
    return JSONResponse(seen, headers={"X-Request-Id": "req-1"})


async def refuse(request: Request) -> Response:
    return JSONResponse({"error": {"message": "no"}}, status_code=422)


async def text(request: Request) -> Response:
    return PlainTextResponse("gone wrong", status_code=500)


async def fault(request: Request) -> Response:
    raise ValueError("a bug")


APP = Starlette(
    routes=[
        Route("/v1/echo", echo, methods=["POST"]),
        Route("/v1/refuse", refuse, methods=["POST"]),
        Route("/v1/text", text, methods=["POST"]),
        Route("/v1/fault", fault, methods=["POST"]),
    ]
)


async def test_a_reply_has_status_id_and_body() -> None:
    reply = await AppHandler(APP)("/v1/echo", {"prompt": "é"})
    assert reply == (200, "req-1", {"body": {"prompt": "é"}, "gone": False})


async def test_refusals_come_through() -> None:
    assert await AppHandler(APP)("/v1/refuse", {}) == (422, "", {"error": {"message": "no"}})


async def test_what_is_no_json_becomes_an_error_body() -> None:
    reply = await AppHandler(APP)("/v1/text", {})
    assert (reply.status, reply.body["error"]["message"]) == (500, "gone wrong")
    assert (await AppHandler(APP)("/v1/none", {})).status == 404


async def test_a_fault_that_was_answered_is_a_reply_like_any_other() -> None:
    assert (await AppHandler(APP)("/v1/fault", {})).status == 500
