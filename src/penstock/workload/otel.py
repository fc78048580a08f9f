"""Model calls in OpenTelemetry exports: OTLP JSON, one object or one a line, or bare spans.

Attribute names are those of the GenAI semantic conventions, with the older prompt/completion
names beside them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

INPUT = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt")
OUTPUT = (
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.token_count.completion",
)
SESSION = ("gen_ai.conversation.id", "session.id")
START = ("startTimeUnixNano", "start_time_unix_nano", "start_time", "startTime")


class Call(NamedTuple):
    """One model call. Seconds since 1970."""

    start_s: float
    input_tokens: int
    output_tokens: int
    session: str
    line: int


class BadSpan(Exception):
    """A model call whose span cannot be used."""

    def __init__(self, line: int, field: str, cause: str) -> None:
        super().__init__(cause)
        self.line, self.field, self.cause = line, field, cause


def calls(lines: list[tuple[int, str]]) -> Iterator[Call]:
    """All model calls of an export; spans without token counts are passed over.

    lines: (number, text). Raises BadSpan.
    """
    for number, data in _documents(lines):
        for span in _spans(data):
            attributes = _attributes(span.get("attributes"))
            tokens = _first(attributes, INPUT)
            if tokens is None:
                continue
            output = _first(attributes, OUTPUT)
            if output is None:
                raise BadSpan(number, OUTPUT[0], "is missing")
            session = _first(attributes, SESSION) or span.get("traceId") or span.get("trace_id")
            yield Call(
                _start(span, number),
                _count(tokens, INPUT[0], number),
                _count(output, OUTPUT[0], number),
                str(session or ""),
                number,
            )


def _documents(lines: list[tuple[int, str]]) -> Iterator[tuple[int, Any]]:
    """The whole text as one JSON document, else each line as one."""
    try:
        yield lines[0][0], json.loads("\n".join(text for _, text in lines))
        return
    except json.JSONDecodeError as error:
        whole = error
    for number, text in lines:
        if text.strip():
            try:
                yield number, json.loads(text)
            except json.JSONDecodeError as error:
                line = number if len(lines) > 1 and number > 1 else whole.lineno
                raise BadSpan(line, "the line", f"is not JSON: {error.msg}") from None


def _spans(data: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(data, list):
        for item in data:
            yield from _spans(item)
    elif isinstance(data, Mapping) and "resourceSpans" in data:
        for resource in data["resourceSpans"]:
            for scope in resource.get("scopeSpans", ()):
                yield from scope.get("spans", ())
    elif isinstance(data, Mapping) and "spans" in data:
        yield from _spans(data["spans"])
    elif isinstance(data, Mapping):
        yield data


def _attributes(raw: Any) -> Mapping[str, Any]:
    """OTLP's list of {key, value: {intValue: …}}, or already a mapping."""
    if isinstance(raw, Mapping):
        return raw
    return {
        item.get("key", ""): next(iter(item.get("value", {}).values()), None) for item in raw or ()
    }


def _first(attributes: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((attributes[name] for name in names if attributes.get(name) is not None), None)


def _count(value: Any, name: str, line: int) -> int:
    try:
        count = int(value)
    except (TypeError, ValueError):
        raise BadSpan(line, name, f"is {value!r}, not a whole number") from None
    if count < 0:
        raise BadSpan(line, name, f"is {count}: negative")
    return count


def _start(span: Mapping[str, Any], line: int) -> float:
    value = _first(span, START)
    if value is None:
        raise BadSpan(line, START[0], "is missing")
    try:
        if str(value).isdigit():
            return int(value) / 1e9
        return datetime.fromisoformat(str(value)).timestamp()
    except ValueError:
        raise BadSpan(line, START[0], f"is {value!r}, not a time") from None
