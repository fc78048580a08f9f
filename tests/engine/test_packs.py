"""The folder of prepared weights: found again, made anew, bounded, and never in the way."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from penstock.config import ModelConfig
from penstock.engine import packs
from penstock.engine.packs import Kept, cache_folder, clear, keep, make_room
from penstock.parallel.ranks import ALONE, RankGroup
from penstock.parallel.stages import Stage

VALUES = torch.arange(10000, dtype=torch.float32)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights" * 1000)
    return folder


@pytest.fixture
def model(tmp_path: Path) -> ModelConfig:
    return ModelConfig(weights_cache_dir=str(tmp_path / "cache"))


def start(
    model: ModelConfig,
    folder: Path,
    dtype: torch.dtype = torch.float32,
    ranks: RankGroup = ALONE,
    make: Callable[[], Tensor] = lambda: VALUES,
) -> Kept:
    """What an engine does with its weights, which are VALUES."""
    kept = keep(model, folder, dtype, ranks, copied=False, weight_bytes=40000)
    assert torch.equal(kept.store.tensor(make), VALUES)
    kept.store.finish()
    return kept


def never() -> Tensor:
    raise AssertionError("what is kept is not made again")


def files(model: ModelConfig) -> list[str]:
    assert model.weights_cache_dir is not None
    return sorted(path.name for path in Path(model.weights_cache_dir).glob("*.weights"))


def test_the_second_start_makes_nothing(model: ModelConfig, checkpoint: Path) -> None:
    assert start(model, checkpoint).found == "miss"
    again = start(model, checkpoint, make=never)
    assert again.hit
    assert not again.fills
    assert "hit" in again.outcome()


def test_contents_are_hashed_once_and_again_when_a_file_changes(
    model: ModelConfig, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(model, checkpoint)
    read = []
    monkeypatch.setattr(packs, "digest", lambda path: read.append(path.name) or "as before")
    assert start(model, checkpoint, make=never).hit
    assert read == []
    (checkpoint / "model.safetensors").write_bytes(b"weightz" * 1000)
    assert start(model, checkpoint).found == "miss"
    assert read == ["model.safetensors"]


def test_a_copy_of_the_checkpoint_hits(model: ModelConfig, checkpoint: Path) -> None:
    start(model, checkpoint)
    other = checkpoint.with_name("elsewhere")
    other.mkdir()
    for file in checkpoint.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    assert start(model, other, make=never).hit


def test_whatever_changes_the_bytes_changes_the_name(
    model: ModelConfig, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(model, checkpoint)
    assert start(model, checkpoint, dtype=torch.bfloat16).found == "miss"
    assert start(replace(model, quantization="int8"), checkpoint).found == "miss"
    assert start(model, checkpoint, ranks=RankGroup(1, 2)).found == "miss"
    assert start(model, checkpoint, ranks=RankGroup(0, 1, Stage(1, 2))).found == "miss"
    monkeypatch.setattr(packs, "makers", lambda: "another version")
    assert start(model, checkpoint).found == "miss"
    assert len(files(model)) == 6


def test_a_damaged_file_is_named_and_made_anew(model: ModelConfig, checkpoint: Path) -> None:
    start(model, checkpoint)
    path = Path(str(model.weights_cache_dir), files(model)[0])
    os.truncate(path, path.stat().st_size - 1)
    kept = start(model, checkpoint)
    assert kept.found == "miss"
    assert kept.outcome().startswith(f"warning: {path} is damaged (it has ")
    assert start(model, checkpoint, make=never).hit


def test_without_the_cache_nothing_is_written(model: ModelConfig, checkpoint: Path) -> None:
    kept = start(replace(model, weights_cache=False), checkpoint)
    assert kept.found == "off"
    assert "--no-weights-cache" in kept.outcome()
    assert not Path(str(model.weights_cache_dir)).exists()


def test_a_folder_that_cannot_be_written_is_no_obstacle(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    kept = start(ModelConfig(weights_cache_dir=str(tmp_path / "file" / "cache")), checkpoint)
    assert kept.found == "off"
    assert kept.outcome().startswith("warning: prepared weights are not kept in")


def test_too_little_room_is_no_obstacle(model: ModelConfig, checkpoint: Path) -> None:
    kept = start(replace(model, weights_cache_bytes=1000), checkpoint)
    assert "are too many for --weights-cache-bytes 1000" in kept.outcome()
    assert files(model) == []


def test_what_was_used_least_recently_makes_room(tmp_path: Path) -> None:
    for age, name in enumerate("dcba"):
        (tmp_path / f"{name}.weights").write_bytes(bytes(100))
        os.utime(tmp_path / f"{name}.weights", (1000 + age, 1000 + age))
    gone = make_room(tmp_path, 150, 410)
    assert [path.name for path in gone] == ["d.weights", "c.weights"]
    assert clear(tmp_path) == 200
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_start_are_swept(tmp_path: Path) -> None:
    for name, age in (("old", packs.WAIT_S + 10), ("young", 0.0)):
        scrap = tmp_path / f"{name}.new"
        scrap.write_text("")
        now = scrap.stat().st_mtime
        os.utime(scrap, (now - age, now - age))
    make_room(tmp_path, 0, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["young.new"]


def test_engines_that_start_together_prepare_once(model: ModelConfig, checkpoint: Path) -> None:
    first = keep(model, checkpoint, torch.float32, ALONE, False, 40000)
    found: list[Kept] = []
    second = threading.Thread(target=lambda: found.append(start(model, checkpoint, make=never)))
    second.start()
    first.store.tensor(lambda: VALUES)
    assert found == []
    first.store.finish()
    second.join(30)
    assert found[0].hit


def test_a_start_that_fails_lets_the_next_one_prepare(model: ModelConfig, checkpoint: Path) -> None:
    failed = keep(model, checkpoint, torch.float32, ALONE, False, 40000)
    failed.store.tensor(lambda: VALUES)
    del failed
    assert start(model, checkpoint).found == "miss"


def test_the_default_folder_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder(None) == Path("/somewhere/penstock/weights")
    for value in ("relative", ""):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_folder(None) == Path("~/.cache/penstock/weights").expanduser()
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder(None) == Path("~/.cache/penstock/weights").expanduser()
    assert cache_folder("~/mine") == Path("~/mine").expanduser()
