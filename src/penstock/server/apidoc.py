"""`docs/api.md`, made from the routes, the table of fields and the map of errors."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from penstock.errors import ERRORS
from penstock.server.fields import Field, Rule
from penstock.server.tables import all_tables
from penstock.web.errors import TYPES, status_of

PATHS: tuple[tuple[str, str], ...] = (
    ("POST /v1/chat/completions", "answer a chat; with `stream`, as server-sent events"),
    ("POST /v1/completions", "continue one or several prompts, given as text or token ids"),
    ("POST /v1/chat/render", "the prompt that a chat becomes, as text and as token ids"),
    ("GET /v1/models, /v1/models/{id}", "the model served, and its adapters"),
    (
        "POST /v1/files",
        "upload a file of requests, as multipart/form-data: `file`, `purpose=batch`",
    ),
    ("GET /v1/files", "the files of this key; `after`, `limit`, `order`, `purpose`"),
    ("GET, DELETE /v1/files/{id}", "what is known of a file; forget it"),
    ("GET /v1/files/{id}/content", "the bytes of a file"),
    ("POST /v1/batches", "answer the requests of a file in the background"),
    ("GET /v1/batches", "the batches of this key, the newest first; `after`, `limit`"),
    ("GET /v1/batches/{id}", "how a batch stands"),
    ("POST /v1/batches/{id}/cancel", "end a batch; the results so far are kept"),
    ("POST /v1/responses", "answer as OpenAI's Responses API; with `stream`, as its events"),
    ("GET, DELETE /v1/responses/{id}", "a stored response; forget it"),
    ("GET /v1/responses/{id}/input_items", "what it answers; `after`, `limit`, `order`"),
    ("POST /v1/messages", "answer as Anthropic's Messages API; with `stream`, as its events"),
    ("POST /v1/messages/count_tokens", "tokens of the prompt that a message becomes"),
    ("POST /v1/embeddings", "texts as vectors: pooled hidden states after the final norm"),
    ("POST /v1/score", "log-likelihood of continuations after their contexts, by token"),
    ("POST /generate", "ids in, ids out; with `stream`, as server-sent events"),
    (
        "POST /v1/load_lora_adapter, /v1/unload_lora_adapter",
        "adapters, which requests choose as `model`; with --allow-runtime-lora-updating",
    ),
    ("POST /tokenize", "text or a chat as token ids"),
    ("POST /detokenize", "token ids as text"),
    ("GET /version", "version of the server"),
    ("GET /, /ui/{name}", "a page to chat with the model and to watch the server (no key needed)"),
    ("GET /dashboard/data", "what that page shows"),
    ("GET /dashboard/requests/{id}", "the story of one request"),
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

BATCHES = """## Batches

With `--data-dir FOLDER` the server answers files of requests as OpenAI's Batch API does. A line of
the file is `{"custom_id": …, "method": "POST", "url": …, "body": …}`; every `url` is the batch's
`endpoint`, every `custom_id` there once. A file with a line that cannot be read fails as a whole,
and `errors` names the lines. Rows run in the background: behind all other requests under any
`--scheduling-policy`, with a quarter of a step's tokens, paused while another request waits for
its first token. Results are kept row by row, so that a server that was killed goes on where it
was; answers with status 200 go to `output_file_id`, all others to `error_file_id`, in the order of
the input. After 24 hours a batch ends as `expired` with what is done. The batches of one key run
one after the other, those of several keys side by side. What a key keeps, other keys do not see.
"""

KEYS = """## Keys

`--api-key` lets a key in that has no name and no limits. `--api-keys-file` names keys:

```toml
[keys.alice]
key = "…"                  # or key_sha256 = "…", so that the file tells no key
requests_per_minute = 60
tokens_per_minute = 100000
max_concurrency = 8
weight = 2                 # of its share of the engine; 1 when absent
share_cache = true         # read and write the prefix cache that others use; else its own
```

All but the key may be absent. A key over one of its limits gets 429 `rate_limit_exceeded`, with
`Retry-After` when the limit allows it again; replies tell what is left in OpenAI's `x-ratelimit-*`.
Tokens are charged when they are known, so a limit may go into debt, which later requests wait for;
rows of batches are not charged. Waiting requests of different keys take turns by the tokens that
each was served, divided by its weight; a prompt token from the cache counts `--cached-token-cost`.
Metrics carry the names of keys; a key itself is neither logged nor kept.
"""

PROTOCOLS = """## Responses and messages

`/v1/responses` and `/v1/messages` are chats in other clothes: what chats support, they do; what
chats refuse is refused under its name there. A response is kept in `--data-dir`, where there is
one, unless `store` is false; `previous_response_id` goes on from it. The key of `/v1/messages` may
come as `x-api-key`, its errors have Anthropic's form, and a last message of the assistant is
continued.
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
    parts = [
        INTRO,
        "## Paths\n",
        _table(("path", "what it does"), _paths()),
        KEYS,
        PROTOCOLS,
        BATCHES,
        FIELD_INTRO,
    ]
    for paths, fields in all_tables().values():
        parts += [f"### {paths}\n", _endpoint(fields.values())]
    parts += [ERROR_INTRO, _table(("code", "status", "type"), _errors())]
    return "\n".join(parts)


def _endpoint(fields: Collection[Field]) -> str:
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
