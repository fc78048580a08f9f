"""SQL over a log's segments with DuckDB: views made from the records themselves.

    requests   choices (a row a choice, of request `id`)   steps (a row a step)
    headers    begins   telemetry   notes   lost   stops

Columns are the records' fields (docs/logs.md) and `start`. Lists and objects are DuckDB's own;
what varies in shape stays JSON. Torn lines are passed over.
"""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from penstock.core.records import KINDS, ChoiceRecord, RequestRecord, Steps
from penstock.errors import ConfigError
from penstock.observe.segments import by_start

_SIMPLE = {str: "VARCHAR", int: "BIGINT", float: "DOUBLE", bool: "BOOLEAN"}
_VIEWS = {
    "header": "headers",
    "begin": "begins",
    "request": "requests",
    "telemetry": "telemetry",
    "note": "notes",
    "lost": "lost",
    "stop": "stops",
}


def structure(kind: Any) -> Any:
    """A type as json_transform wants it."""
    if get_origin(kind) in (UnionType,) or isinstance(kind, UnionType):
        parts = [part for part in get_args(kind) if part is not NoneType]
        return structure(parts[0]) if len(parts) == 1 else "JSON"
    if kind in _SIMPLE:
        return _SIMPLE[kind]
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return {item.name: structure(hints[item.name]) for item in fields(kind)}
    if get_origin(kind) is list:
        (inner,) = get_args(kind)
        found = structure(inner)
        return "JSON" if found == "JSON" else [found]
    return "JSON"


def connect(folder: Path) -> Any:
    """A DuckDB connection with the views. Raises ConfigError when there are no segments, or no
    duckdb."""
    try:
        import duckdb  # slow to load, and needed by this command alone
    except ImportError:
        raise ConfigError("duckdb is not installed.", cure="pip install duckdb") from None
    if not folder.is_dir() or not by_start(folder):
        raise ConfigError(f"{folder} holds no segments.", cure="Name the folder of --log-dir.")
    connection = duckdb.connect(":memory:")
    pattern = str(folder / "*-??????.jsonl").replace("'", "''")
    connection.execute(
        "CREATE VIEW lines AS SELECT json, json->>'$.t' AS kind,"
        " regexp_extract(filename, '([^/]+)-[0-9]{6}[.]jsonl$', 1) AS start_of"
        f" FROM read_ndjson_objects('{pattern}', ignore_errors=true, filename=true)"
    )
    for kind, name in _VIEWS.items():
        connection.execute(f"CREATE VIEW {name} AS {_select(kind, KINDS[kind])}")
    inner = ", ".join(f'c."{item.name}"' for item in fields(ChoiceRecord))
    connection.execute(
        f"CREATE VIEW choices AS SELECT id, start, received_s, {inner}"
        " FROM (SELECT id, start, received_s, unnest(choices) AS c FROM requests)"
    )
    columns = {item.name: item.type for item in fields(Steps)}
    shown = [
        f'unnest("{name}") AS "{name}"' if str(kind).startswith("list") else f'"{name}"'
        for name, kind in columns.items()
    ]
    connection.execute(
        f"CREATE VIEW steps AS SELECT start, {', '.join(shown)} FROM ({_select('steps', Steps)})"
    )
    return connection


def _select(kind: str, record: type) -> str:
    shape = json.dumps(structure(record))
    own = (
        ""
        if record is RequestRecord or any(f.name == "start" for f in fields(record))
        else ("start_of AS start, ")
    )
    return (
        f"SELECT {own}r.* FROM (SELECT start_of, json_transform(json, '{shape}') AS r"
        f" FROM lines WHERE kind = '{kind}')"
    )


def query(folder: Path, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """(names of columns, rows). Raises ConfigError for what DuckDB refuses."""
    connection = connect(folder)
    try:
        found = connection.execute(sql)
        names = [column[0] for column in found.description]
        return names, found.fetchall()
    except Exception as error:  # duckdb's own tree of errors, known only where it is imported
        first = str(error).strip().splitlines()[0]
        views = ", ".join([*_VIEWS.values(), "choices", "steps"])
        raise ConfigError(f"DuckDB: {first}", cure=f"Views: {views}; see docs/logs.md.") from None
    finally:
        connection.close()
