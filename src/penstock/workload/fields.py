"""Dataclass fields that a text file fills: declared once, then read, checked, and described.

From the same declarations come the reader (which names every wrong field at once, not the first
alone), the writer and the published JSON Schema.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


class Problem(NamedTuple):
    """What is wrong with one field. `line` counts from 1; None where no line says it."""

    field: str
    cause: str
    cure: str
    line: int | None = None

    def text(self, name: str) -> str:
        """One line: file, line, field, cause and cure."""
        place = name if self.line is None else f"{name}:{self.line}"
        return f"{place}: {self.field}: {self.cause} {self.cure}".rstrip()


def spec(
    help: str,
    *,
    default: Any = MISSING,
    unit: str = "",
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    filled: bool = True,
) -> Any:
    """A field; without a default it is required.

    minimum and maximum are allowed values, `above` is not; `filled`: an empty text or list is
    refused.
    """
    metadata = {
        "help": help, "unit": unit, "minimum": minimum, "above": above,
        "maximum": maximum, "choices": choices, "filled": filled,
    }  # fmt: skip
    if default is MISSING:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Shape:
    """The type of a field: a scalar, a nested dataclass, or several (`many`) of either; `pairs`
    are lists of two numbers."""

    kind: type
    many: bool
    optional: bool
    pairs: bool

    @classmethod
    def of(cls, hint: Any) -> Shape:
        parts = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        (kind,) = (part for part in parts if part is not NoneType)
        many = get_origin(kind) is tuple
        inner = get_args(kind)[0] if many else kind
        pairs = get_origin(inner) is tuple
        return cls(float if pairs else inner, many, NoneType in parts, pairs)

    @property
    def nested(self) -> bool:
        return is_dataclass(self.kind)


def shapes(cls: type) -> Iterator[tuple[Field[Any], Shape]]:
    """The fields of a dataclass with their shapes, in order."""
    hints = get_type_hints(cls)
    for item in fields(cls):
        yield item, Shape.of(hints[item.name])


Lines = Callable[[str], int | None]
"""lines(path of a field) -> the line that sets it, or the nearest around it."""


class Reader:
    """Turns tables into dataclasses; what is wrong gathers in `problems`."""

    def __init__(self, lines: Lines) -> None:
        self.problems: list[Problem] = []
        self._lines = lines

    def complain(self, path: str, cause: str, cure: str) -> None:
        self.problems.append(Problem(path or "the file", cause, cure, self._lines(path)))

    def read(self, cls: type, table: object, path: str = "") -> Any:
        """An instance of `cls`, or None if a field of it is wrong.

        A dataclass may have `problems()`, which yields a Problem (field relative to itself) for
        each contradiction between its fields; it is asked once all fields are well.
        """
        if not isinstance(table, Mapping):
            self.complain(path, f"is {_shown(table)}, not a table.", f"Write it as [{path}].")
            return None
        before = len(self.problems)
        values: dict[str, Any] = {}
        known = {item.name for item, _ in shapes(cls)}
        for key in table:
            if key not in known:
                self.complain(_join(path, key), "is unknown.", _nearest(key, known))
        for item, shape in shapes(cls):
            place = _join(path, item.name)
            if item.name in table:
                values[item.name] = self._value(item, shape, table[item.name], place)
            elif item.default is MISSING:
                self.complain(place, "is missing.", _wanted(item, shape))
        if len(self.problems) > before:
            return None
        made = cls(**values)
        for found in made.problems() if hasattr(made, "problems") else ():
            self.complain(_join(path, found.field), found.cause, found.cure)
        return made

    def _value(self, item: Field[Any], shape: Shape, value: object, path: str) -> Any:
        if not shape.many:
            return self._one(item, shape, value, path)
        if not isinstance(value, list):
            self.complain(path, f"is {_shown(value)}, not a list.", _wanted(item, shape))
            return ()
        if not value and item.metadata["filled"] and item.default is MISSING:
            self.complain(path, "is empty.", _wanted(item, shape))
        one = self._pair if shape.pairs else self._one
        return tuple(one(item, shape, v, f"{path}[{i}]") for i, v in enumerate(value))

    def _pair(self, item: Field[Any], shape: Shape, value: object, path: str) -> Any:
        if isinstance(value, list) and len(value) == 2 and all(_is_number(v) for v in value):
            return (float(value[0]), float(value[1]))
        self.complain(path, f"is {_shown(value)}.", "Give a list of two numbers.")
        return None

    def _one(self, item: Field[Any], shape: Shape, value: object, path: str) -> Any:
        if shape.nested:
            return self.read(shape.kind, value, path)
        kind = shape.kind
        if kind is float and _is_number(value):
            value = float(value)  # type: ignore[arg-type]
        if type(value) is not kind:
            self.complain(path, f"is {_shown(value)}, not {KINDS[kind]}.", _wanted(item, shape))
            return None
        fault = _out_of_range(item, value)
        if fault:
            self.complain(path, f"is {_shown(value)}: {fault}.", _wanted(item, shape))
        return value


def _out_of_range(item: Field[Any], value: Any) -> str:
    meta = item.metadata
    if meta["choices"] and value not in meta["choices"]:
        return "not one of its choices"
    if isinstance(value, str):
        return "it must not be empty" if meta["filled"] and not value.strip() else ""
    if not math.isfinite(value):
        return "not a finite number"
    if meta["minimum"] is not None and value < meta["minimum"]:
        return f"less than {meta['minimum']:g}"
    if meta["above"] is not None and value <= meta["above"]:
        return f"not above {meta['above']:g}"
    if meta["maximum"] is not None and value > meta["maximum"]:
        return f"more than {meta['maximum']:g}"
    return ""


def _wanted(item: Field[Any], shape: Shape) -> str:
    meta = item.metadata
    if meta["choices"]:
        return f"Use one of {', '.join(meta['choices'])}."
    unit = f" in {meta['unit']}" if meta["unit"] else ""
    what = "a table" if shape.nested else KINDS[shape.kind]
    what = "a list of pairs" if shape.pairs else f"a list of {what}" if shape.many else what
    return f"Give {what}{unit}: {meta['help']}."


def _nearest(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f"Did you mean {close[0]}?" if close else f"Known here: {', '.join(sorted(known))}."


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name else path or name


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def plain(value: Any) -> Any:
    """An instance as plain data for JSON and TOML; None and empty lists are left out."""
    if is_dataclass(value) and not isinstance(value, type):
        found = {item.name: plain(getattr(value, item.name)) for item in fields(value)}
        return {name: data for name, data in found.items() if data is not None and data != []}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return value


# The published schema

_TYPES = {int: "integer", float: "number", bool: "boolean", str: "string"}


def json_schema(cls: type, title: str, identifier: str) -> dict[str, Any]:
    """JSON Schema (2020-12) of a dataclass; nested ones stand once, under `$defs`."""
    definitions: dict[str, Any] = {}
    root = _schema(cls, definitions)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": identifier}
    return head | {"title": title} | root | {"$defs": dict(sorted(definitions.items()))}


def _schema(cls: type, definitions: dict[str, Any]) -> dict[str, Any]:
    properties = {item.name: _property(item, shape, definitions) for item, shape in shapes(cls)}
    return {
        "type": "object",
        "description": " ".join((cls.__doc__ or "").split()),
        "properties": properties,
        "required": [item.name for item, _ in shapes(cls) if item.default is MISSING],
        "additionalProperties": False,
    }


def _property(item: Field[Any], shape: Shape, definitions: dict[str, Any]) -> dict[str, Any]:
    meta = item.metadata
    one: dict[str, Any]
    if shape.nested:
        name = shape.kind.__name__
        if name not in definitions:
            definitions[name] = {}
            definitions[name] = _schema(shape.kind, definitions)
        one = {"$ref": f"#/$defs/{name}"}
    else:
        one = {"type": _TYPES[shape.kind]}
    limits = {
        "enum": list(meta["choices"]) or None, "minimum": meta["minimum"],
        "exclusiveMinimum": meta["above"], "maximum": meta["maximum"],
    }  # fmt: skip
    one |= {name: limit for name, limit in limits.items() if limit is not None}
    if shape.pairs:
        one = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
    if shape.many:
        one = {"type": "array", "items": one}
    unit = f" [{meta['unit']}]" if meta["unit"] else ""
    one["description"] = meta["help"] + unit
    if item.default is not MISSING and item.default is not None and not shape.many:
        one["default"] = item.default
    return one
