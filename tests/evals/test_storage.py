from __future__ import annotations

from pathlib import Path

import pytest

from penstock.evals.storage import Storage, storage
from tests.evals.readers import checkpoint, reader


@pytest.mark.parametrize("tied", [False, True])
def test_kinds_and_their_bits(tied: bool, tmp_path: Path) -> None:
    path = checkpoint(tmp_path, tie_word_embeddings=tied, hidden_size=64, intermediate_size=96)
    found = storage(reader(path, "int4").model.targets())
    mlp = found["model.layers.*.mlp.up_proj.weight"]
    assert mlp == Storage(2 * 64 * 96, 2 * 64 * 96 * 9 // 16)
    assert mlp.bits_per_weight == 4.5
    table = found["model.embed_tokens.weight"]
    assert table.bits_per_weight == 8 + 32 / 64
    assert found["model.norm.weight"].bits_per_weight == 32
    assert ("lm_head.weight" in found) == (not tied)
    assert len(found) == 11 + (not tied)
    assert mlp + table == Storage(mlp.weights + table.weights, mlp.bytes + table.bytes)
