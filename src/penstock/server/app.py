"""The HTTP application: its routes as a list, and `serve`, which `penstock serve` calls."""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import uvloop
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

import penstock
from penstock.config import Config
from penstock.engine.group import EngineGroup
from penstock.llm import AsyncLLM
from penstock.observe.telemetry import Reader
from penstock.server import (
    adapter_routes,
    batch_routes,
    messages_routes,
    pages,
    reading_routes,
    responses_routes,
    routes,
)
from penstock.server.asking import request_id
from penstock.server.fields import CHAT, COMPLETIONS, DETOKENIZE, TOKENIZE
from penstock.server.lifecycle import bind, run, url_of
from penstock.server.openapi import described
from penstock.server.service import Service
from penstock.server.start import Start
from penstock.server.tables import (
    BATCHES,
    COUNT,
    EMBEDDINGS,
    GENERATE,
    LOAD_ADAPTER,
    MESSAGES,
    RESPONSES,
    SCORE,
    UNLOAD_ADAPTER,
)
from penstock.web.errors import on_http_error
from penstock.web.farewell import Farewell
from penstock.web.keys import KeyGate
from penstock.web.sse import ClientGone

Handler = Callable[[Service, Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    path: str
    handler: Handler
    fields: str | None = None
    """endpoint of the table of fields, for those with a body"""
    open: bool = False
    """needs no key"""
    form: bool = False
    """the body is a file in a form"""
    listed: bool = False
    """the reply is a page of a list"""


ROUTES: tuple[Route, ...] = (
    Route("POST", "/v1/chat/completions", routes.chat, CHAT),
    Route("POST", "/v1/completions", routes.completions, COMPLETIONS),
    Route("POST", "/v1/chat/render", routes.render, CHAT),
    Route("GET", "/v1/models", routes.models),
    Route("GET", "/v1/models/{name:path}", routes.model),
    Route("POST", "/v1/load_lora_adapter", adapter_routes.load, LOAD_ADAPTER),
    Route("POST", "/v1/unload_lora_adapter", adapter_routes.unload, UNLOAD_ADAPTER),
    Route("POST", "/v1/responses", responses_routes.create, RESPONSES),
    Route("GET", "/v1/responses/{id}", responses_routes.get),
    Route("DELETE", "/v1/responses/{id}", responses_routes.delete),
    Route("GET", "/v1/responses/{id}/input_items", responses_routes.items, listed=True),
    Route("POST", "/v1/messages", messages_routes.create, MESSAGES),
    Route("POST", "/v1/messages/count_tokens", messages_routes.count_tokens, COUNT),
    Route("POST", "/v1/embeddings", reading_routes.embeddings, EMBEDDINGS),
    Route("POST", "/v1/score", reading_routes.scores, SCORE),
    Route("POST", "/generate", reading_routes.generate, GENERATE),
    Route("POST", "/v1/files", batch_routes.upload, form=True),
    Route("GET", "/v1/files", batch_routes.files, listed=True),
    Route("GET", "/v1/files/{id}", batch_routes.file),
    Route("DELETE", "/v1/files/{id}", batch_routes.delete_file),
    Route("GET", "/v1/files/{id}/content", batch_routes.content),
    Route("POST", "/v1/batches", batch_routes.create_batch, BATCHES),
    Route("GET", "/v1/batches", batch_routes.batches, listed=True),
    Route("GET", "/v1/batches/{id}", batch_routes.batch),
    Route("POST", "/v1/batches/{id}/cancel", batch_routes.cancel_batch),
    Route("POST", "/tokenize", routes.tokenize, TOKENIZE),
    Route("POST", "/detokenize", routes.detokenize, DETOKENIZE),
    Route("GET", "/version", routes.version),
    Route("GET", "/", pages.index, open=True),
    Route("GET", "/ui/{name}", pages.asset, open=True),
    Route("GET", "/dashboard/data", pages.data),
    Route("GET", "/dashboard/requests/{name:path}", pages.story),
    Route("GET", "/metrics", routes.metrics, open=True),
    Route("GET", "/live", routes.live, open=True),
    Route("GET", "/ready", routes.ready, open=True),
    Route("GET", "/health", routes.health, open=True),
)

OPEN_PATHS = pages.ASSET_PATHS | {r.path for r in ROUTES if r.open} | {"/docs", "/openapi.json"}


def create_app(service: Service) -> FastAPI:
    """The ASGI application over a service that may still be loading."""
    app = FastAPI(title="Penstock", version=penstock.__version__, redoc_url=None)
    for route in ROUTES:
        app.add_api_route(
            route.path,
            _endpoint(service, route.handler),
            methods=[route.method],
            name=route.handler.__name__,
            summary=(route.handler.__doc__ or "").partition("\n")[0],
            response_model=None,
            openapi_extra=described(route.path, route.fields, route.form, route.listed),
        )
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_middleware(Farewell)
    app.add_middleware(KeyGate, service.keys, OPEN_PATHS)
    if origins := service.config.server.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["*"],
        )
    service.app = app
    return app


def _endpoint(service: Service, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            return await handler(service, request)
        except (ClientGone, ClientDisconnect):
            return Response(status_code=499)  # nginx's number; nobody reads it
        except Exception as error:
            return service.refuse(error, request_id(request), request.url.path)

    return endpoint


def serve(config: Config) -> None:
    """Serve until a signal ends it.

    Raises ConfigError when the address cannot be had, and what keeps the model from loading;
    SystemExit(1) when running requests were cut off at the end.
    """
    sock = bind(config.server.host, config.server.port)  # first: a port in use shows at once
    start = Start()
    level = config.server.log_level.upper()
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    service = Service(config)

    async def load() -> None:
        client = EngineGroup(config)
        llm = await AsyncLLM.start(config, client)
        service.open(llm)
        service.metrics.watch_processes(client.processes)
        if llm.log is not None:
            llm.log.watch(Reader(client.processes))
        service.watch()
        sys.stdout.write(start.report(llm.info, url_of(sock)))
        sys.stdout.flush()

    app = create_app(service)
    ends = (service.abort_all, service.close)
    if not uvloop.run(run(app, config.server, service.door, load, *ends, sock)):
        raise SystemExit(1)
