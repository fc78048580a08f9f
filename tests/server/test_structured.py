"""The fields that ask for structured output, in one form and another."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from penstock.errors import InvalidFieldError, UnsupportedFieldError
from penstock.server.fields import CHAT, COMPLETIONS, parse
from penstock.server.structured import structured_outputs
from penstock.text.structured import StructuredOutputs

SCHEMA = {"type": "object"}
BODIES = {CHAT: {"messages": [{"role": "user", "content": "a"}]}, COMPLETIONS: {"prompt": "a"}}


def asked(endpoint: str = CHAT, **fields: Any) -> StructuredOutputs | None:
    return structured_outputs(parse(endpoint, msgspec.json.encode({**BODIES[endpoint], **fields})))


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"structured_outputs": {}}, None),
        ({"response_format": {"type": "json_object"}}, StructuredOutputs(json_object=True)),
        ({"structured_outputs": {"regex": "a"}}, StructuredOutputs(regex="a")),
        ({"guided_json": SCHEMA}, StructuredOutputs(json=SCHEMA)),
        ({"guided_regex": "a"}, StructuredOutputs(regex="a")),
        ({"guided_choice": ["a"]}, StructuredOutputs(choice=["a"])),
        ({"guided_grammar": 'start: "a"'}, StructuredOutputs(grammar='start: "a"')),
        ({"structural_tag": "{}"}, StructuredOutputs(structural_tag="{}")),
        (
            {"guided_json": SCHEMA, "guided_whitespace_pattern": " ?"},
            StructuredOutputs(json=SCHEMA, whitespace_pattern=" ?"),
        ),
        ({"guided_regex": "a", "guided_decoding_backend": "auto"}, StructuredOutputs(regex="a")),
    ],
)
def test_ways_to_ask(
    endpoint: str, fields: dict[str, Any], wanted: StructuredOutputs | None
) -> None:
    assert asked(endpoint, **fields) == wanted


@pytest.mark.parametrize(
    "fields",
    [
        {"guided_regex": "a", "guided_choice": ["a"]},
        {"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}},
        {"guided_whitespace_pattern": " "},
        {"guided_choice": "a"},
        {"structured_outputs": {"regex": "a", "choice": ["b"]}},
    ],
)
def test_ways_not_to(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidFieldError):
        asked(**fields)


def test_another_library() -> None:
    with pytest.raises(UnsupportedFieldError, match="guided_decoding_backend"):
        asked(guided_regex="a", guided_decoding_backend="outlines")
