"""Files of commands: read plain or packed, and refused by their flag."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from penstock.cli.inputs import load_workload, read_text, write_text
from penstock.errors import ConfigError
from penstock.workload import file
from penstock.workload.archetypes import chatbot


def test_packed_and_plain_files_read_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hällo\n", encoding="utf-8")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("hällo\n".encode()))
    assert read_text(str(tmp_path / "a.txt"), "f") == read_text(str(tmp_path / "a.txt.gz"), "f")


@pytest.mark.parametrize("content", [b"\xff\xfe\xfa", None])
def test_unreadable_files_are_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"--file is .* cannot be read"):
        read_text(str(path), "--file")
    broken = tmp_path / "x.gz"
    broken.write_bytes(b"not packed")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_text(str(broken), "--file")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_text(str(tmp_path / "no" / "folder"), "x", "--out")


def test_a_workload_is_loaded_with_its_requests(tmp_path: Path) -> None:
    path = tmp_path / "w.toml"
    path.write_text(file.to_toml(chatbot()))
    load = load_workload(str(path))
    assert load.trace is None
    assert load.workload == chatbot()
    sessions = {request.session for request in load.requests(sessions=3)}
    assert sessions == {0, 1, 2}
    assert max(load.rates()) == pytest.approx(20)
