"""Errors as HTTP: one map from `errors` codes to status numbers, one OpenAI-style body for all.

{"error": {"message": cause and cure, "type": ..., "param": field or null, "code": ...}}
"""

from __future__ import annotations

import logging
import math
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from penstock.errors import EngineError, PenstockError

log = logging.getLogger(__name__)

STATUS: dict[str, int] = {
    "invalid_request": 400,
    "invalid_field": 400,
    "unsupported_field": 400,
    "context_length_exceeded": 400,
    "template_error": 400,
    "invalid_api_key": 401,
    "model_not_found": 404,
    "not_found": 404,
    "not_enabled": 404,
    "body_too_large": 413,
    "queue_full": 429,
    "slo_miss": 429,
    "rate_limit_exceeded": 429,
    "unavailable": 503,
    "draining": 503,
    "canary_failed": 503,
    "engine_stuck": 503,
    "engine_dead": 503,
    "deadline_exceeded": 504,
}
"""Status of each error code; a code that is not here is our own fault: 500."""

TYPES: dict[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
    504: "timeout_error",
}
"""OpenAI's `type` of each status; others are `server_error`."""


def status_of(code: str) -> int:
    return STATUS.get(code, 500)


def body(status: int, code: str, message: str, param: str | None = None) -> dict[str, Any]:
    """The JSON object of an error."""
    kind = TYPES.get(status, "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_body(error: PenstockError) -> dict[str, Any]:
    return body(status_of(error.code), error.code, str(error), error.param)


ANTHROPIC_TYPES: dict[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""Anthropic's `type` of each status; others are `api_error`."""
ANTHROPIC_PATHS = ("/v1/messages", "/v1/messages/count_tokens")


def anthropic_body(error: PenstockError) -> dict[str, Any]:
    kind = ANTHROPIC_TYPES.get(status_of(error.code), "api_error")
    return {"type": "error", "error": {"type": kind, "message": str(error)}}


def headers_of(error: PenstockError) -> dict[str, str]:
    """Retry-After for what may pass later, in whole seconds; the scheme that a 401 must name."""
    status = status_of(error.code)
    if status in (429, 503):
        return {"Retry-After": str(max(1, math.ceil(error.retry_after_s or 1.0)))}
    return {"WWW-Authenticate": "Bearer"} if status == 401 else {}


def error_response(error: PenstockError, path: str = "") -> Response:
    """path: what was asked for; it decides whose form the body has."""
    content = anthropic_body(error) if path in ANTHROPIC_PATHS else error_body(error)
    return json_response(content, status_of(error.code), headers_of(error))


def json_response(
    content: Any, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """`content` (dicts, lists, msgspec structs) as a JSON response."""
    return Response(msgspec.json.encode(content), status, headers, "application/json")


def as_typed(error: Exception) -> PenstockError:
    """The error itself when it is ours; anything else is a bug: logged whole, told in general."""
    if isinstance(error, PenstockError):
        return error
    log.error("unexpected %s", type(error).__name__, exc_info=error)
    return EngineError(
        f"Internal error ({type(error).__name__}).",
        cure="The server's log has the details under this request's id.",
    )


async def on_error(request: Request, error: Exception) -> Response:
    """Exception handler of an application, for every class of error."""
    return error_response(as_typed(error))


async def on_http_error(request: Request, error: Exception) -> Response:
    """Exception handler for what the routing itself refuses: unknown path, wrong method."""
    assert isinstance(error, HTTPException)
    status, path = error.status_code, request.url.path
    code = {404: "unknown_path", 405: "method_not_allowed"}.get(status, "http_error")
    message = {
        404: f"There is nothing at {path}. The paths served here are listed at /docs.",
        405: f"{path} does not take {request.method}; see the Allow header.",
    }.get(status, str(error.detail))
    return json_response(body(status, code, message), status, dict(error.headers or {}))
