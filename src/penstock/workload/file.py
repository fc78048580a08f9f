"""A workload file: text to a checked `Workload`, and back; the published schema."""

from __future__ import annotations

import json
from dataclasses import is_dataclass
from typing import Any

from penstock.errors import ConfigError
from penstock.workload import text
from penstock.workload.definition import Workload
from penstock.workload.fields import Problem, Reader, json_schema, plain, shapes
from penstock.workload.sessions import Generator

SCHEMA_ID = "https://penstock.dev/schemas/workload.schema.json"


def inspect(content: str, name: str = "workload") -> tuple[Workload | None, list[Problem]]:
    """The definition in a TOML or JSON text, and everything that is wrong with it.

    name: of the file, for messages. Raises ConfigError when the text is neither TOML nor JSON.
    """
    tables, lines = text.parse(content, name)
    reader = Reader(lines)
    workload = reader.read(Workload, tables)
    if not reader.problems and workload.arrivals.process != "trace":
        try:
            Generator(workload)
        except ConfigError as error:
            reader.complain(error.param or "arrivals", error.message, error.cure)
    return (None if reader.problems else workload), reader.problems


def read(content: str, name: str = "workload") -> Workload:
    """Raises ConfigError with all that is wrong: file, line, field, cause and cure of each."""
    workload, problems = inspect(content, name)
    if workload is None:
        more = [problem.text(name) for problem in problems]
        raise ConfigError("\n".join(more), param=problems[0].field)
    return workload


def to_toml(workload: Workload, comments: bool = False) -> str:
    """comments: the meaning of every field above its line."""
    return text.to_toml(plain(workload), _notes(Workload) if comments else None)


def to_json(workload: Workload) -> str:
    return json.dumps(plain(workload), indent=2, ensure_ascii=False) + "\n"


def _notes(cls: type, path: str = "", depth: int = 0) -> dict[str, str]:
    notes: dict[str, str] = {}
    for item, shape in shapes(cls):
        here = f"{path}.{item.name}" if path else item.name
        unit = f" [{item.metadata['unit']}]" if item.metadata["unit"] else ""
        notes[here] = item.metadata["help"] + unit
        if is_dataclass(shape.kind) and depth == 0:
            notes |= _notes(shape.kind, here, 1)
    return notes


def schema() -> dict[str, Any]:
    """The JSON Schema of the file."""
    return json_schema(Workload, "Penstock workload", SCHEMA_ID)


def render_schema() -> str:
    """docs/workload.schema.json."""
    return json.dumps(schema(), indent=2) + "\n"
