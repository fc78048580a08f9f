"""The OpenAI batch line format: a request in, a result out, one JSON object a line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

URLS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
)
MAX_CUSTOM_ID = 512
"""Characters."""


@dataclass(frozen=True, slots=True)
class LineError:
    """Why a line of input cannot be run; its row says so and the other rows go on."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Line:
    """One line of input. `body` is empty when there is an error."""

    custom_id: str | None
    url: str = ""
    body: dict[str, Any] | None = None
    error: LineError | None = None


def parse(text: bytes) -> Line:
    """Read a line; whatever is wrong with it is told in `error`."""
    try:
        data = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Line(None, error=LineError("invalid_json", f"The line is not JSON: {error}."))
    if not isinstance(data, dict):
        return Line(None, error=LineError("invalid_line", "The line is not a JSON object."))
    custom_id = data.get("custom_id")
    known_id = custom_id if isinstance(custom_id, str) else None
    fault = _fault(data)
    if fault is not None:
        return Line(known_id, error=fault)
    return Line(known_id, data["url"], data["body"])


def _fault(data: dict[str, Any]) -> LineError | None:
    custom_id, url, body = data.get("custom_id"), data.get("url"), data.get("body")
    if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= MAX_CUSTOM_ID:
        message = f"custom_id must be a text of 1 to {MAX_CUSTOM_ID} characters."
        return LineError("invalid_custom_id", message)
    if data.get("method") != "POST":
        return LineError("invalid_method", f"method is {data.get('method')!r}, not 'POST'.")
    if url not in URLS:
        return LineError("invalid_url", f"url is {url!r}, not one of {', '.join(URLS)}.")
    if not isinstance(body, dict):
        return LineError("invalid_body", "body must be a JSON object.")
    if body.get("stream"):
        return LineError("stream_not_supported", "stream must be false in a batch.")
    return None


def result(
    row_id: str, custom_id: str | None, status: int, request_id: str, body: dict[str, Any]
) -> bytes:
    """The line of a request that was answered, well or not."""
    response = {"status_code": status, "request_id": request_id, "body": body}
    return _encode(row_id, custom_id, response, None)


def failure(row_id: str, custom_id: str | None, error: LineError) -> bytes:
    """The line of a request that could not be run at all."""
    return _encode(row_id, custom_id, None, {"code": error.code, "message": error.message})


def _encode(row_id: str, custom_id: str | None, response: Any, error: Any) -> bytes:
    line = {"id": row_id, "custom_id": custom_id, "response": response, "error": error}
    return msgspec.json.encode(line)
