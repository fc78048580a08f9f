"""What a server keeps in its data folder: uploaded files, batches, responses."""

from __future__ import annotations

from pathlib import Path

from penstock.errors import ConfigError
from penstock.jobs.batches import Batches
from penstock.jobs.database import Database
from penstock.jobs.files import Files
from penstock.jobs.objects import Objects


class Data:
    """Raises ConfigError when the folder cannot be used, or another server uses it."""

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._database = Database(folder / "penstock.sqlite")
            self.files = Files(self._database, folder / "files")
        except OSError as error:
            raise ConfigError(
                f"The data folder {folder} cannot be used: {error.strerror}.",
                cure="Give a folder that can be written to.",
                param="data_dir",
            ) from error
        self.batches = Batches(self._database, self.files)
        self.responses = Objects(self._database, "response")

    async def close(self) -> None:
        """Stop the batches where they are."""
        await self.batches.stop()
        self._database.close()
