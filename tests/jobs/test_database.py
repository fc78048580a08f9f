from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.errors import ConfigError
from penstock.jobs.database import Database

ADD = "INSERT INTO object (kind, id, owner, data) VALUES ('k', ?, '', '')"


def test_a_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.sqlite")

    def fails() -> None:
        with database.transaction():
            database.execute(ADD, ("1",))
            with database.transaction():
                database.execute(ADD, ("2",))
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fails()
    assert database.rows("SELECT id FROM object") == []
    with database.transaction():
        assert database.execute(ADD, ("3",)) == 1
    database.close()
    again = Database(tmp_path / "a.sqlite")
    assert again.rows("SELECT id FROM object") == [("3",)]
    again.close()


def test_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(ConfigError, match="another version"):
        Database(path)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    path.write_text("no database at all, but longer than a header of SQLite is" * 20)
    with pytest.raises(ConfigError, match="no job state"):
        Database(path)


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    database = Database(path)
    code = (
        "import sys, pathlib; from penstock.jobs.database import Database\n"
        "from penstock.errors import ConfigError\n"
        "try: Database(pathlib.Path(sys.argv[1]))\n"
        "except ConfigError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "cannot be opened: database is locked" in told
    database.close()
