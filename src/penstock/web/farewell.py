"""When the last byte of a reply was handed to the socket: known only outside the handler."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

KEY = "penstock.farewell"


class Farewell:
    """ASGI middleware: calls what handlers asked for once a reply is through or its client gone."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tells: list[Callable[[], None]] = []
        scope[KEY] = tells
        try:
            await self.app(scope, receive, send)
        finally:
            for tell in tells:
                tell()


def after(request: Request, tell: Callable[[], None]) -> None:
    """Call `tell` when the reply to this request is through."""
    request.scope[KEY].append(tell)
