"""The handlers that load and unload adapters at run time. Names and paths are vLLM's."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from penstock.errors import RequestError
from penstock.server.fields import Parsed
from penstock.server.service import Service
from penstock.server.tables import LOAD_ADAPTER, UNLOAD_ADAPTER, parse
from penstock.web.errors import json_response
from penstock.web.limits import read_body


async def load(service: Service, request: Request) -> Response:
    """Load an adapter, which requests then choose as their model."""
    body = await _body(service, request, LOAD_ADAPTER)
    adapter = await service.load_adapter(body["lora_name"], body["lora_path"])
    return json_response({"id": adapter.name, "object": "model", "root": adapter.path})


async def unload(service: Service, request: Request) -> Response:
    """Unload an adapter that no request runs with."""
    body = await _body(service, request, UNLOAD_ADAPTER)
    service.unload_adapter(body["lora_name"])
    return json_response({"id": body["lora_name"], "object": "model", "deleted": True})


async def _body(service: Service, request: Request, endpoint: str) -> Parsed:
    if not service.config.model.allow_runtime_lora_updating:
        raise RequestError(
            "Adapters are not loaded at run time here.",
            cure="Start the server with --allow-runtime-lora-updating.",
        )
    return parse(endpoint, await read_body(request, service.config.server.max_body_bytes))
