"""The web page at `/`: playground and live dashboard, and the data that the dashboard asks for.

Plain files without a build step and without anything from another host.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from penstock.errors import InvalidFieldError, NotFoundError, PenstockError
from penstock.observe.live import FIRST_S, GROWTH
from penstock.server.service import Service
from penstock.web.errors import json_response

ASSETS = {
    "index.html": "text/html; charset=utf-8",
    "app.css": "text/css; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "chart.js": "text/javascript; charset=utf-8",
    "dashboard.js": "text/javascript; charset=utf-8",
    "playground.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
ASSET_PATHS = frozenset(f"/ui/{name}" for name in ASSETS)
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
}


async def index(service: Service, request: Request) -> Response:
    """Playground and dashboard."""
    return _file("index.html")


async def asset(service: Service, request: Request) -> Response:
    """A file of the page."""
    return _file(request.path_params["name"])


async def data(service: Service, request: Request) -> Response:
    """What the dashboard shows, as far as it is newer than `second` and `serial`."""
    llm = service.llm()
    second, serial = _number(request, "second", -1), _number(request, "serial", 0)
    try:
        wrong = service.check_health()
        health = "degraded: " + ", ".join(wrong) if wrong else "healthy"
    except PenstockError as error:
        health = str(error)
    now = llm.clock.now()
    return json_response(
        service.live.since(second, serial)
        | {
            "now": now,
            "start": service.created,
            "up_s": now - service.opened_s,
            "health": health,
            "first_s": FIRST_S,
            "growth": GROWTH,
            "telemetry": _telemetry(service),
        }
    )


async def story(service: Service, request: Request) -> Response:
    """Where the time of one of the latest requests went."""
    found = service.live.story(request.path_params["name"])
    if found is None:
        raise NotFoundError(
            "There is no such request among those that are kept.",
            cure="The dashboard keeps the latest; the request log keeps all.",
        )
    return json_response(found)


def _telemetry(service: Service) -> list[tuple[str, str]]:
    """(name, value in words)"""
    memory = sum(service.metrics.memory().values())
    return [("Memory of all processes", f"{memory / 2**30:.2f} GiB")]


def _number(request: Request, name: str, default: int) -> int:
    given: Any = request.query_params.get(name, default)
    try:
        return int(given)
    except ValueError:
        raise InvalidFieldError(f"{name} is not an integer.", param=name) from None


def _file(name: str) -> Response:
    if name not in ASSETS:
        raise NotFoundError("There is no such file.", cure="The page is at /.")
    content = (files("penstock.server") / "ui" / name).read_bytes()
    return Response(content, media_type=ASSETS[name], headers=HEADERS)
