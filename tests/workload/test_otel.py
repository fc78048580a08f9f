"""OpenTelemetry exports in the shapes that collectors and SDKs write."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.errors import ConfigError
from penstock.workload.traces import parse


def span(start_ns: int, tokens: int, output: int | None, conversation: str = "") -> dict[str, Any]:
    attributes = [
        {"key": "gen_ai.usage.input_tokens", "value": {"intValue": str(tokens)}},
        {"key": "gen_ai.request.model", "value": {"stringValue": "m"}},
    ]
    if output is not None:
        attributes.append({"key": "gen_ai.usage.output_tokens", "value": {"intValue": str(output)}})
    if conversation:
        value = {"stringValue": conversation}
        attributes.append({"key": "gen_ai.conversation.id", "value": value})
    return {
        "traceId": "abc",
        "name": "chat m",
        "startTimeUnixNano": str(start_ns),
        "attributes": attributes,
    }


def otlp(*spans: dict[str, Any]) -> dict[str, Any]:
    return {"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]}


TOOL: dict[str, Any] = {"name": "search", "startTimeUnixNano": "1", "attributes": []}
FIRST, SECOND = span(2_000_000_000, 10, 5, "c1"), span(1_500_000_000, 20, 6)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(otlp(FIRST, TOOL, SECOND)),
        json.dumps(otlp(FIRST, TOOL, SECOND), indent=1),
        json.dumps(otlp(FIRST, TOOL)) + "\n" + json.dumps(otlp(SECOND)),
        json.dumps([FIRST, TOOL, SECOND]),
    ],
    ids=["one line", "many lines", "a line each", "bare spans"],
)
def test_model_calls_are_found_and_put_in_order(text: str) -> None:
    trace = parse(text.splitlines(), "spans.json", "otel")
    assert trace.format == "otel"
    assert [(r.at_s, r.input_tokens, r.output_tokens, r.session) for r in trace.rows] == [
        (0, 20, 6, "abc"),
        (0.5, 10, 5, "c1"),
    ]


def test_flat_attributes_and_old_names() -> None:
    flat = {
        "start_time": "2026-01-01T00:00:00.250Z",
        "attributes": {"gen_ai.usage.prompt_tokens": 7, "gen_ai.usage.completion_tokens": 3},
    }
    (row,) = parse([json.dumps(flat)], "spans.jsonl").rows
    assert (row.input_tokens, row.output_tokens) == (7, 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (json.dumps(otlp(span(1, 5, None))), "gen_ai.usage.output_tokens: is missing"),
        (json.dumps(otlp(span(1, -5, 3))), "negative"),
        (json.dumps(otlp({**span(1, 5, 3), "startTimeUnixNano": "noon"})), "not a time"),
        (json.dumps(otlp(TOOL)), "no requests"),
        ('{"resourceSpans": [', "not JSON"),
    ],
)
def test_spans_that_cannot_be_used_are_told(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        parse([text], "spans.json")
    assert caught.value.cure
