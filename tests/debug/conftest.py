from __future__ import annotations

from pathlib import Path

import pytest

from penstock.observe.reader import Log, read
from tests.debug import runs


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log of 60 mixed requests that meet in a small cache, and of a few sessions."""
    made = tmp_path_factory.mktemp("mixed")
    runs.record(made, runs.mixed(60), kv_cache_memory_bytes=34 * 49152)  # 34 blocks
    runs.record(made, runs.turns(3, 3))
    return made


@pytest.fixture(scope="session")
def log(folder: Path) -> Log:
    return read(folder)
