from __future__ import annotations

from pathlib import Path

import pytest

from tests import oracle


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random-weight Llama checkpoint of a few kilobytes (context 512, vocabulary 320)."""
    shape = oracle.FAMILIES["llama"][0]
    return oracle.make_checkpoint("llama", shape, shape.seed, tmp_path_factory.mktemp("tiny"))
