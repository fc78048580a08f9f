"""`docs/api.md`, made from the routes, the table of fields and the map of errors."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from penstock.errors import ERRORS
from penstock.server.fields import ENDPOINTS, FIELDS, Field, Rule
from penstock.web.errors import TYPES, status_of

PATHS: tuple[tuple[str, str], ...] = (
    ("POST /v1/chat/completions", "answer a chat; with `stream`, as server-sent events"),
    ("POST /v1/completions", "continue one or several prompts, given as text or token ids"),
    ("POST /v1/chat/render", "the prompt that a chat becomes, as text and as token ids"),
    ("GET /v1/models, /v1/models/{id}", "the model served, and its adapters"),
    (
        "POST /v1/load_lora_adapter, /v1/unload_lora_adapter",
        "adapters, which requests choose as `model`; with --allow-runtime-lora-updating",
    ),
    ("POST /tokenize", "text or a chat as token ids"),
    ("POST /detokenize", "token ids as text"),
    ("GET /version", "version of the server"),
    ("GET /metrics", "metrics in Prometheus' text format (no key needed)"),
    ("GET /live", "200 as soon as the process listens (no key needed)"),
    ("GET /ready", "200 while new requests are taken, else 503 (no key needed)"),
    ("GET /health", "200 while the engine makes progress, else 503 (no key needed)"),
    ("GET /docs, /openapi.json", "this interface as an OpenAPI document (no key needed)"),
)

INTRO = """# The HTTP API

The paths, fields and errors of OpenAI's API, with the additional fields that vLLM has. This page is
made from the code by `make fix`.

Keys, where the server has any, are sent as `Authorization: Bearer <key>`. Each reply carries the
request's id in `X-Request-Id`; a client may choose it by the same header. A deadline in seconds may
be set by the field `timeout` or the header `X-Request-Timeout` (the sooner one counts): when it
passes, a stream ends with `finish_reason` `timeout`, any other request with status 504. A client
that disconnects ends its request; the blocks that it held are free within one step.
"""

FIELD_INTRO = """## Fields

`null` is accepted for every field and means that it is absent. A field that could change the answer
and is not supported is refused, never ignored, unless its value equals the default behaviour. A
field that is not listed here is refused too.
"""

ERROR_INTRO = """## Errors

Every error has the same shape, and its message says the cause and the cure:

```json
{"error": {"message": "…", "type": "invalid_request_error", "param": "top_p", "code": "…"}}
```

In a stream that has begun, the same object is sent as the last event before `[DONE]`. Status 429
and 503 come with `Retry-After`.
"""


def render() -> str:
    """The whole page."""
    parts = [INTRO, "## Paths\n", _table(("path", "what it does"), _paths()), FIELD_INTRO]
    for endpoint, paths in ENDPOINTS.items():
        parts += [f"### {paths}\n", _endpoint(endpoint)]
    parts += [ERROR_INTRO, _table(("code", "status", "type"), _errors())]
    return "\n".join(parts)


def _endpoint(endpoint: str) -> str:
    fields = [field for field in FIELDS if endpoint in field.on]
    rows = [_field(field) for rule in Rule for field in fields if field.rule is rule]
    return _table(("field", "rule", "value", "default", "note"), rows)


def _field(field: Field) -> tuple[str, ...]:
    if field.rule is Rule.LOGGED:
        return f"`{field.name}`", "accepted, logged", "any value", "", field.note
    if field.rule is Rule.REFUSED:
        return f"`{field.name}`", "refused", _but(field.accepted), "", field.note
    default = "required" if field.required else ""
    if field.default is not None:
        default = f"`{msgspec.json.encode(field.default).decode()}`"
    return f"`{field.name}`", "used", field.kind.words, default, field.note


def _but(accepted: str) -> str:
    return f"but for null, {accepted}" if accepted else "but for null"


def _paths() -> list[tuple[str, ...]]:
    return [(f"`{path}`", what) for path, what in PATHS]


def _errors() -> list[tuple[str, ...]]:
    shown = {code: status_of(code) for code in ERRORS if status_of(code) != 500}
    rows = [(f"`{c}`", str(s), f"`{TYPES[s]}`") for c, s in shown.items()]
    return [*sorted(rows, key=lambda row: row[1]), ("any other", "500", "`server_error`")]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
