from __future__ import annotations

from typing import Any

import pytest

from penstock.errors import GrammarError
from penstock.grammar.schema import MAX_DEPTH, check_schema, subschemas


def test_places_of_schemas() -> None:
    schema = {
        "properties": {"minProperties": {"type": "integer"}, "b": {"items": [{"const": {"a": 1}}]}},
        "enum": [{"not": "a schema"}],
        "anyOf": [True, {"$ref": "#"}],
    }
    places = [where for _, where in subschemas(schema)]
    assert places == [
        "#",
        "#/properties/minProperties",
        "#/properties/b",
        "#/properties/b/items/0",
        "#/anyOf/1",
    ]


@pytest.mark.parametrize(
    "schema",
    [
        {"minProperties": 1},
        {"minProperties": 2, "required": ["a", "b"]},
        {"properties": {"minProperties": {"minimum": 5}}},
        {"const": {"minProperties": 7}},
    ],
)
def test_what_can_be_enforced(schema: dict[str, Any]) -> None:
    check_schema(schema)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"minProperties": 2}, "minProperties at # "),
        ({"items": {"minProperties": 3, "required": ["a"]}}, "minProperties at #/items "),
        ({"anyOf": [{"x-guidance": {}}]}, "x-guidance at #/anyOf/0 "),
    ],
)
def test_what_cannot(schema: dict[str, Any], words: str) -> None:
    with pytest.raises(GrammarError, match=words):
        check_schema(schema)


def test_a_bottomless_schema() -> None:
    schema: dict[str, Any] = {}
    for _ in range(MAX_DEPTH):
        schema = {"items": schema}
    with pytest.raises(GrammarError, match="nested"):
        check_schema({"items": schema})
