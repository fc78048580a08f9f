from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.errors import NotFoundError
from penstock.jobs.database import Database
from penstock.jobs.files import Files


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "state.sqlite")
    yield opened
    opened.close()


def test_a_file_is_kept_and_deleted(database: Database, tmp_path: Path) -> None:
    files = Files(database, tmp_path / "files")
    made = files.save("ann", "in.jsonl", "batch", [b"one\n", b"two\n"])
    assert (made["bytes"], made["filename"], made["object"]) == (8, "in.jsonl", "file")
    assert files.path(made["id"]).read_bytes() == b"one\ntwo\n"
    assert files.get("ann", made["id"]) == made
    other = files.save("ann", "b", "batch_output", [])
    assert files.page("ann", None, 5, True, "batch").data == [made]
    assert files.page("ann", None, 5, True, None).data == [other, made]
    with pytest.raises(NotFoundError):
        files.delete("bob", made["id"])
    files.delete("ann", made["id"])
    assert not files.path(made["id"]).exists()


def test_what_a_killed_process_left_is_swept(database: Database, tmp_path: Path) -> None:
    files = Files(database, tmp_path / "files")
    kept = files.save("ann", "a", "batch", [b"x"])
    files.write("file-unknown", "b", "batch", [b"y"])
    (tmp_path / "files" / "file-z.partial").write_bytes(b"half")
    again = Files(database, tmp_path / "files")
    assert [path.name for path in (tmp_path / "files").iterdir()] == [kept["id"]]
    assert again.path(kept["id"]).read_bytes() == b"x"


def test_an_upload_that_breaks_off_leaves_no_file(database: Database, tmp_path: Path) -> None:
    files = Files(database, tmp_path / "files")

    def broken() -> Iterator[bytes]:
        yield b"half"
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        files.save("ann", "a", "batch", broken())
    assert files.page("ann", None, 5, True, None).data == []
