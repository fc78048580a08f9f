from __future__ import annotations

from typing import Any

import pytest

from penstock.errors import GrammarError, InvalidFieldError
from penstock.text.structured import StructuredOutputs, of_response_format

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("asked", "rule"),
    [
        ({"json": SCHEMA}, "%json"),
        ({"json": '{"type": "string"}'}, '"string"'),
        ({"json": True}, "%json"),
        ({"json_object": True}, '"object"'),
        ({"regex": "a+"}, "/a+/"),
        ({"choice": ["x", "y"]}, '"x" | "y"'),
        ({"grammar": 'start: "a"'}, "@own"),
        ({"grammar": 'root ::= "a"'}, "@own"),
        ({"structural_tag": '{"format": {"type": "const_string", "value": "v"}}'}, '"v"'),
        ({"json": SCHEMA, "disable_any_whitespace": True}, '"whitespace_flexible": false'),
        ({"json": SCHEMA, "whitespace_pattern": " ?"}, '"whitespace_pattern": " ?"'),
        ({"regex": "a", "json": None, "json_object": False}, "/a/"),
    ],
)
def test_what_is_asked_for_as_a_grammar(asked: dict[str, Any], rule: str) -> None:
    assert rule in StructuredOutputs.read(asked).to_grammar({}).rules


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"json": SCHEMA, "regex": "a"},
        {"regex": 3},
        {"choice": []},
        {"choice": [1]},
        {"grammar": ["a"]},
        {"jsn": SCHEMA},
        {"json": SCHEMA, "disable_additional_properties": True},
        {"json": SCHEMA, "whitespace_pattern": " ", "disable_any_whitespace": True},
        "json",
        {"json": "{"},
        {"json": [1]},
        {"structural_tag": "["},
    ],
)
def test_wrong_forms(asked: Any) -> None:
    with pytest.raises(InvalidFieldError):
        StructuredOutputs.read(asked).to_grammar({})


def test_what_cannot_be_enforced() -> None:
    with pytest.raises(GrammarError, match="minProperties"):
        StructuredOutputs(json={"minProperties": 4}).to_grammar({})


def test_response_format() -> None:
    assert of_response_format({"type": "text"}) is None
    assert of_response_format({"type": "json_object"}) == StructuredOutputs(json_object=True)
    described = {"name": "a", "schema": SCHEMA, "strict": True}
    form = {"type": "json_schema", "json_schema": described}
    assert of_response_format(form) == StructuredOutputs(json=SCHEMA)
    tag = {"type": "structural_tag", "structures": [], "triggers": []}
    assert of_response_format(tag) == StructuredOutputs(structural_tag=tag)


@pytest.mark.parametrize("form", [{}, {"type": "xml"}, {"type": "json_schema"}, "text", None])
def test_wrong_response_formats(form: Any) -> None:
    with pytest.raises(InvalidFieldError, match="response_format"):
        of_response_format(form)
