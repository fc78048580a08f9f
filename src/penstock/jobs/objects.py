"""JSON objects that the API keeps for its clients: files, batches, responses.

Each belongs to an owner, the name of the key that made it; nobody else can see that it exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from penstock.errors import NotFoundError
from penstock.jobs.database import Database

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list, and whether it goes on."""

    data: list[Json]
    has_more: bool


class Objects:
    """Objects of one kind; each has its `id` inside."""

    def __init__(self, database: Database, kind: str) -> None:
        self._db = database
        self._kind = kind

    def add(self, owner: str, data: Json) -> None:
        self._db.execute(
            "INSERT INTO object (kind, id, owner, data) VALUES (?, ?, ?, ?)",
            (self._kind, data["id"], owner, msgspec.json.encode(data)),
        )

    def replace(self, data: Json) -> None:
        """Write a new state of one that is there."""
        query = "UPDATE object SET data = ? WHERE kind = ? AND id = ?"
        self._db.execute(query, (msgspec.json.encode(data), self._kind, data["id"]))

    def get(self, owner: str, id: str) -> Json:
        """Raises NotFoundError."""
        query = "SELECT data FROM object WHERE kind = ? AND owner = ? AND id = ?"
        found = self._db.rows(query, (self._kind, owner, id))
        if not found:
            raise NotFoundError(f"There is no {self._kind} {id!r}.", cure="List what there is.")
        return _decode(found[0][0])

    def page(
        self,
        owner: str,
        after: str | None,
        limit: int,
        newest_first: bool = True,
        having: tuple[str, str] | None = None,
    ) -> Page:
        """Up to `limit` objects behind the one with the id `after`; having: (name, value) of a
        member that they share. Raises NotFoundError."""
        if after is not None:
            self.get(owner, after)
        way, order = ("<", "DESC") if newest_first else (">", "ASC")
        query = (
            "SELECT data FROM object WHERE kind = ?1 AND owner = ?2 AND (?3 IS NULL OR serial"
            f" {way} (SELECT serial FROM object WHERE id = ?3)) AND (?4 IS NULL OR"
            " json_extract(CAST(data AS TEXT), '$.' || ?4) = ?5)"
            f" ORDER BY serial {order} LIMIT ?6"
        )
        name, value = having or (None, None)
        found = self._db.rows(query, (self._kind, owner, after, name, value, limit + 1))
        return Page([_decode(data) for (data,) in found[:limit]], len(found) > limit)

    def everybodys(self) -> list[tuple[str, Json]]:
        """(owner, object) of all, the oldest first."""
        query = "SELECT owner, data FROM object WHERE kind = ? ORDER BY serial"
        return [(owner, _decode(data)) for owner, data in self._db.rows(query, (self._kind,))]

    def delete(self, owner: str, id: str) -> None:
        """Raises NotFoundError."""
        self.get(owner, id)
        self._db.execute("DELETE FROM object WHERE kind = ? AND id = ?", (self._kind, id))


def _decode(data: bytes) -> Json:
    found: Json = msgspec.json.decode(data)
    return found
