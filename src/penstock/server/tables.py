"""The body fields of the endpoints beside chats and completions: one table, as in `fields`."""

from __future__ import annotations

from penstock.server import fields, kinds
from penstock.server.fields import Field, Parsed, decode, read, refused, used

BATCHES = "batches"
ENDPOINTS: dict[str, str] = {BATCHES: "/v1/batches"}

FIELDS: tuple[Field, ...] = (
    # Batches
    used("input_file_id", (BATCHES,), kinds.TEXT, required=True, note="an uploaded file"),
    used("endpoint", (BATCHES,), kinds.TEXT, required=True, note="where its requests go"),
    used("completion_window", (BATCHES,), kinds.TEXT, required=True, note="`24h` alone"),
    used("metadata", (BATCHES,), kinds.METADATA, note="kept with the batch"),
    refused("output_expires_after", (BATCHES,), note="files stay until they are deleted"),
)

TABLES: dict[str, dict[str, Field]] = {
    endpoint: {field.name: field for field in FIELDS if endpoint in field.on}
    for endpoint in ENDPOINTS
}


def parse(endpoint: str, data: bytes) -> Parsed:
    """A raw body as checked values. Raises RequestError and its kin, naming the field at fault."""
    return read(TABLES[endpoint], decode(data))


def all_tables() -> dict[str, tuple[str, dict[str, Field]]]:
    """Paths and fields of every endpoint with a JSON body."""
    first = {name: (paths, fields.table(name)) for name, paths in fields.ENDPOINTS.items()}
    return first | {name: (paths, TABLES[name]) for name, paths in ENDPOINTS.items()}
