"""JSON schemas that people ask answers to follow: 150 found and 50 of our own."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

FOUND = Path(__file__).parents[1] / "data" / "schemas" / "jsonschemabench.jsonl.gz"

Schema = dict[str, Any]
TEXT: Schema = {"type": "string", "maxLength": 12}


@cache
def all_schemas() -> dict[str, Schema]:
    """200 by name."""
    lines = gzip.decompress(FOUND.read_bytes()).splitlines()
    found = {row["id"]: row["schema"] for row in map(json.loads, lines)}
    return {**found, **dict(own())}


def record(**properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def own() -> Iterator[tuple[str, Schema]]:
    """50, each about one thing or two."""
    for name, schema in LEAVES.items():
        yield f"own-{name}", record(value=schema)
        yield f"own-list-{name}", {"type": "array", "items": schema, "minItems": 1, "maxItems": 2}
    yield from (("own-" + name, schema) for name, schema in WHOLES.items())


LEAVES: dict[str, Schema] = {
    "text": TEXT,
    "long": {"type": "string", "minLength": 5, "maxLength": 9},
    "pattern": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"},
    "search": {"type": "string", "pattern": "ab", "maxLength": 8},
    "date": {"type": "string", "format": "date"},
    "date-time": {"type": "string", "format": "date-time"},
    "uuid": {"type": "string", "format": "uuid"},
    "ipv4": {"type": "string", "format": "ipv4"},
    "email": {"type": "string", "format": "email"},
    "integer": {"type": "integer", "minimum": -5, "maximum": 120},
    "number": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    "multiple": {"type": "integer", "multipleOf": 5, "minimum": 10, "maximum": 95},
    "bool": {"type": "boolean"},
    "null": {"type": ["null", "integer"], "maximum": 9},
    "enum": {"enum": ["red", "grün", 3, None, True, {"a": [1]}]},
    "const": {"const": 'a "quote", a \\ and a\nline'},
    "any-of": {"anyOf": [{"type": "integer", "maximum": 7}, record(name=TEXT)]},
    "all-of": {"allOf": [{"type": "string", "maxLength": 9}, {"minLength": 2}]},
    "not": {"not": {"type": "string"}},
    "unique": {"type": "array", "items": {"type": "boolean"}, "uniqueItems": True},
}
WHOLES: dict[str, Schema] = {
    "recursive": {
        "$defs": {"node": record(value={"type": "integer"}, next={"$ref": "#/$defs/next"})}
        | {"next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}},
        "$ref": "#/$defs/node",
    },
    "optional": {"type": "object", "properties": {"a": TEXT, "b": TEXT, "c": {"type": "null"}}},
    "map": {"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 2},
    "patterns": {
        "type": "object",
        "patternProperties": {"^x_": {"type": "boolean"}},
        "additionalProperties": False,
    },
    "tuple": {"type": "array", "prefixItems": [TEXT, {"type": "null"}], "items": False},
    "tree": record(left=record(a=TEXT), right=record(b=record(c={"type": "boolean"}))),
    "if": {"if": {"required": ["a"]}, "then": {"required": ["b"]}},
    "min-properties": {"type": "object", "minProperties": 3},
    "one-of": {"oneOf": [{"type": "integer"}, {"type": "string", "maxLength": 4}]},
    "any": {},
}
