from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from penstock.engine import adapters, peft
from penstock.engine.adapters import AdapterStore
from penstock.errors import CheckpointError
from tests import oracle
from tests.adapters import make_adapter
from tests.fakes import submission


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = oracle.FAMILIES["llama"][0]
    return oracle.make_checkpoint("llama", shape, 0, tmp_path_factory.mktemp("store"))


def test_reads_scaled_matrices_by_layer(model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(model, tmp_path, 1, matrices=("q_proj", "down_proj"), lora_alpha=2)
    found = AdapterStore(8).get(adapter)
    assert set(found) == {0, 1}
    assert set(found[1]) == {"q_proj", "down_proj"}
    saved = load_file(Path(adapter.path) / peft.WEIGHTS)
    name = "base_model.model.model.layers.1.mlp.down_proj.lora_{}.weight"
    assert torch.equal(found[1]["down_proj"][0], saved[name.format("A")])
    assert torch.equal(found[1]["down_proj"][1], saved[name.format("B")] / 2)


def test_reads_once_and_before_the_first_step(model: Path, tmp_path: Path) -> None:
    """So that neither a slow nor a missing file meets requests that run."""
    adapter = make_adapter(model, tmp_path, 1)
    store = AdapterStore(8)
    store.prepare(submission("1", [1]))
    store.prepare(submission("2", [1], adapter=adapter))
    (Path(adapter.path) / peft.WEIGHTS).unlink()
    assert store.get(adapter)


def test_forgets_the_one_used_longest_ago(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters, "KEPT", 2)
    made = [make_adapter(model, tmp_path, seed, rank=1) for seed in (1, 2, 3)]
    store = AdapterStore(8)
    for adapter in (made[0], made[1], made[0], made[2]):
        store.get(adapter)
    for adapter in made:
        (Path(adapter.path) / peft.WEIGHTS).unlink()
    assert store.get(made[0])
    assert store.get(made[2])
    with pytest.raises(CheckpointError):
        store.get(made[1])


def test_refuses_files_that_changed(model: Path, tmp_path: Path) -> None:
    """KV is told apart by the digest: other weights under it would answer from the wrong cache."""
    adapter = make_adapter(model, tmp_path, 1)
    make_adapter(model, tmp_path, 1, lora_alpha=3)
    with pytest.raises(CheckpointError, match="not the one"):
        AdapterStore(8).get(adapter)
