"""Which JSON schemas can be enforced, as far as the compiler would not say so itself.

llguidance refuses the keywords that it does not know. Here stands what it would let pass although
an output might then not be valid, and what JSON Schema gives no meaning to.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from penstock.errors import GrammarError

_VALUES = frozenset({"const", "enum", "default", "examples", "example"})
"""keywords whose values are no schemas"""
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""keywords whose values are schemas by name"""

MAX_DEPTH = 200


def check_schema(schema: dict[str, Any]) -> None:
    """Raise GrammarError, naming the keyword, for what cannot be enforced."""
    for found, where in subschemas(schema):
        if "x-guidance" in found:
            raise unsupported("x-guidance", where, "it is no part of JSON Schema")
        least = found.get("minProperties", 0)
        if isinstance(least, int) and least > max(1, len(found.get("required") or ())):
            raise unsupported(
                "minProperties", where, "above the required ones, keys might repeat themselves"
            )


def unsupported(keyword: str, where: str, why: str) -> GrammarError:
    return GrammarError(
        f"{keyword} at {where} cannot be enforced: {why}.",
        cure="Leave it out of the schema, and check it afterwards.",
    )


def subschemas(schema: Any, where: str = "#", depth: int = 0) -> Iterator[tuple[Any, str]]:
    """Every object that stands where a schema may stand, with its place. Raises GrammarError for
    one that is nested too deeply."""
    if depth > MAX_DEPTH:
        raise GrammarError(f"The schema is nested more than {MAX_DEPTH} deep.", cure="Flatten it.")
    if isinstance(schema, list):
        for i, item in enumerate(schema):
            yield from subschemas(item, f"{where}/{i}", depth + 1)
        return
    if not isinstance(schema, dict):
        return
    yield schema, where
    for key, value in schema.items():
        if key in _VALUES:
            continue
        if key in _NAMED and isinstance(value, dict):
            for name, item in value.items():
                yield from subschemas(item, f"{where}/{key}/{name}", depth + 1)
        else:
            yield from subschemas(value, f"{where}/{key}", depth + 1)
