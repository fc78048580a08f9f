"""What the OpenAPI document says of a route beside its path: parameters, body, errors."""

from __future__ import annotations

import re
from typing import Any

from penstock.server.fields import schema
from penstock.server.lists import MOST
from penstock.server.tables import all_tables

CURSOR: dict[str, dict[str, Any]] = {
    "after": {"type": "string"},
    "limit": {"type": "integer", "minimum": 1, "maximum": MOST},
    "order": {"enum": ["asc", "desc"]},
}
FORM = {
    "type": "object",
    "properties": {"file": {"type": "string", "format": "binary"}, "purpose": {"enum": ["batch"]}},
    "required": ["file", "purpose"],
    "additionalProperties": False,
}
ERROR = {
    "description": "an error",
    "content": {"application/json": {"schema": {"type": "object", "required": ["error"]}}},
}


def described(path: str, fields: str | None, form: bool, listed: bool) -> dict[str, Any]:
    """fields: endpoint of the table of fields; form: whether the body is a file; listed: whether
    the reply is a page of a list."""
    found: dict[str, Any] = {"parameters": _parameters(path, listed)}
    found["responses"] = {"default": ERROR}
    if fields is not None:
        _, table = all_tables()[fields]
        found["requestBody"] = _body("application/json", schema(table))
    elif form:
        found["requestBody"] = _body("multipart/form-data", FORM)
    return found


def _parameters(path: str, listed: bool) -> list[dict[str, Any]]:
    names = [name for name, _ in re.findall(r"{(\w+)(:path)?}", path)]
    found = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in names
    ]
    if listed:
        found += [
            {"name": name, "in": "query", "required": False, "schema": shape}
            for name, shape in CURSOR.items()
        ]
    return found


def _body(kind: str, shape: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {kind: {"schema": shape}}}
