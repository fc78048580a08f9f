"""Files that clients upload and batches write: bytes in a folder, what is known of them in SQLite.

A file is written under another name, synced and renamed before the database knows of it. What the
database does not know is left over from a process that ended, and goes at the next start.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterable
from pathlib import Path

from penstock.jobs.database import Database
from penstock.jobs.objects import Json, Objects, Page


class Files:
    def __init__(self, database: Database, folder: Path) -> None:
        self._objects = Objects(database, "file")
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        known = {data["id"] for _, data in self._objects.everybodys()}
        for path in folder.iterdir():
            if path.name not in known:
                path.unlink()

    def path(self, id: str) -> Path:
        """Where the bytes are; ids are our own, and name no other place."""
        return self._folder / id

    def save(self, owner: str, name: str, purpose: str, chunks: Iterable[bytes]) -> Json:
        """Keep a new file; the object that describes it."""
        data = self.write(new_id(), name, purpose, chunks)
        self.add(owner, data)
        return data

    def write(self, id: str, name: str, purpose: str, chunks: Iterable[bytes]) -> Json:
        """Write the bytes alone, whole or not at all; `add` is to follow."""
        partial, size = self._folder / f"{id}.partial", 0
        with partial.open("wb") as file:
            for chunk in chunks:
                size += file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path(id))
        return {
            "id": id,
            "object": "file",
            "bytes": size,
            "created_at": int(time.time()),
            "expires_at": None,
            "filename": name,
            "purpose": purpose,
            "status": "processed",
        }

    def add(self, owner: str, data: Json) -> None:
        self._objects.add(owner, data)

    def get(self, owner: str, id: str) -> Json:
        """Raises NotFoundError."""
        return self._objects.get(owner, id)

    def page(
        self, owner: str, after: str | None, limit: int, newest_first: bool, purpose: str | None
    ) -> Page:
        """Of one purpose, or of all. Raises NotFoundError."""
        having = None if purpose is None else ("purpose", purpose)
        return self._objects.page(owner, after, limit, newest_first, having)

    def delete(self, owner: str, id: str) -> None:
        """Raises NotFoundError."""
        self._objects.delete(owner, id)
        self.path(id).unlink(missing_ok=True)


def new_id() -> str:
    return f"file-{secrets.token_hex(12)}"
