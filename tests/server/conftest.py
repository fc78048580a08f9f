from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.process import Server, serving, write_checkpoint

KEY = "a key of the tests"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def server(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that leave it as it was. Few blocks, so that requests meet."""
    output = tmp_path_factory.mktemp("server") / "output"
    flags = ["--kv-cache-memory-bytes", "2MiB", "--num-threads", "1", "--api-key", KEY]
    flags += ["--data-dir", str(tmp_path_factory.mktemp("data"))]
    with serving(checkpoint, output, *flags, "--served-model-name", "tiny") as made:
        yield made
