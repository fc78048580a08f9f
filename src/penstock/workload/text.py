"""TOML and JSON: text to tables with the line of every key, and tables back to TOML."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from penstock.errors import ConfigError
from penstock.workload.fields import Lines

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""^\s*("[^"]+"|'[^']+'|[\w.-]+)\s*=""")
_JSON = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|\n')


def parse(text: str, name: str) -> tuple[dict[str, Any], Lines]:
    """The tables of a TOML or JSON text (JSON begins with a brace), and a finder of lines.

    Raises ConfigError naming `name` and the line that cannot be read.
    """
    is_json = text.lstrip().startswith("{")
    try:
        tables = json.loads(text) if is_json else tomllib.loads(text)
    except json.JSONDecodeError as error:
        cause = f"{name}:{error.lineno}: not JSON: {error.msg}."
        raise ConfigError(cause, cure="Correct that line.") from None
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        place = f"{name}:{found[1]}" if found else name
        cause = f"{place}: not TOML: {error}."
        raise ConfigError(cause, cure="Correct that line.") from None
    if not tables:
        raise ConfigError(
            f"{name}:1: the file is empty.", cure="`penstock workload init` fills one."
        )
    places = _json_lines(text) if is_json else _toml_lines(text)

    def line(path: str) -> int | None:
        while path and path not in places:
            path = re.sub(r"(\[\d+\]|\.?[^.\[\]]+)$", "", path)
        return places.get(path)

    return tables, line


def _toml_lines(text: str) -> dict[str, int]:
    """Best effort: headers and keys at the start of a line; an inline table has one line."""
    places: dict[str, int] = {}
    counts: dict[str, int] = {}
    table = ""
    for number, row in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(row):
            table = header[2].replace('"', "").replace(" ", "")
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                places.setdefault(table, number)
                table = f"{table}[{counts[table]}]"
            elif "." in table:
                # [list.child] belongs to the last element of the list
                first, rest = table.split(".", 1)
                table = f"{first}[{counts[first]}].{rest}" if first in counts else table
            places.setdefault(table, number)
        elif key := _KEY.match(row):
            path = key[1].strip("\"'")
            places.setdefault(f"{table}.{path}" if table else path, number)
    return places


def _json_lines(text: str) -> dict[str, int]:
    places: dict[str, int] = {}
    stack: list[tuple[str, int | None]] = []
    path, line, key = "", 1, ""
    tokens = [found.group() for found in _JSON.finditer(text)]
    for at, token in enumerate(tokens):
        if token == "\n":
            line += 1
        elif token.startswith('"') and _follower(tokens, at) == ":":
            key = json.loads(token)
            places.setdefault(f"{path}.{key}" if path else key, line)
        elif token in "{[":
            if stack:
                index = stack[-1][1]
                path = f"{path}[{index}]" if index is not None else f"{path}.{key}".lstrip(".")
                places.setdefault(path, line)
            stack.append((path, 0 if token == "[" else None))
        elif token in "}]":
            stack.pop()
            path = stack[-1][0] if stack else ""
        elif token == "," and stack and stack[-1][1] is not None:
            stack[-1] = (stack[-1][0], stack[-1][1] + 1)
    return places


def _follower(tokens: list[str], at: int) -> str:
    at += 1
    while at < len(tokens) and tokens[at] == "\n":
        at += 1
    return tokens[at] if at < len(tokens) else ""


def to_toml(tables: Mapping[str, Any], notes: Mapping[str, str] | None = None) -> str:
    """TOML of plain data: tables of the first level get a header, deeper ones stand inline.

    notes: comments by path ("arrivals.cv"), written above their line.
    """
    notes = notes or {}
    rows: list[str] = []

    def write(path: str, table: Mapping[str, Any]) -> None:
        for key, value in table.items():
            note = notes.get(f"{path}.{key}" if path else key)
            rows.extend([f"# {note}"] if note else [])
            rows.append(f"{key} = {_value(value)}")

    top = {k: v for k, v in tables.items() if not _is_table(v)}
    write("", top)
    for name, value in tables.items():
        if not _is_table(value):
            continue
        elements = value if isinstance(value, list) else [value]
        for index, table in enumerate(elements):
            rows.append("")
            note = notes.get(name)
            rows.extend([f"# {note}"] if note and index == 0 else [])
            rows.append(f"[[{name}]]" if isinstance(value, list) else f"[{name}]")
            write(name, table)
    return "\n".join(rows).lstrip("\n") + "\n"


def _is_table(value: Any) -> bool:
    several = isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)
    return isinstance(value, Mapping) or several


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(v)}" for key, v in value.items()) + " }"
    items = [_value(item) for item in value]
    if sum(map(len, items)) > 80:
        return "[\n" + "".join(f"  {item},\n" for item in items) + "]"
    return f"[{', '.join(items)}]"
