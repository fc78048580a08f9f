from __future__ import annotations

from pathlib import Path

import pytest
import torch

from penstock.cli import main
from penstock.engine.pack import PackWriter


@pytest.fixture
def place(tmp_path: Path) -> Path:
    about = {"model": "a-model", "quantization": "int8", "dtype": "bfloat16", "rank": [1, 2, 0, 1]}
    writer = PackWriter(tmp_path / "x.weights", "key", about, 1 << 20)
    writer.tensor(lambda: torch.arange(5000.0))
    writer.finish()
    return tmp_path


def test_what_is_kept_is_shown(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "show", "--weights-cache-dir", str(place), "--verify"]) == 0
    shown = capsys.readouterr().out
    for part in ("a-model", "int8", "bfloat16", "1/2, stage 0/1"):
        assert part in shown


def test_damage_is_an_exit_code(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (place / "x.weights").open("r+b") as file:
        file.seek(5000)
        file.write(b"#")
    command = ["cache", "show", "--weights-cache-dir", str(place)]
    assert main(command) == 0
    assert main([*command, "--verify"]) == 1
    assert "damaged" in capsys.readouterr().out


def test_clear_empties_the_folder(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "clear", "--weights-cache-dir", str(place)]) == 0
    assert "freed" in capsys.readouterr().out
    assert list(place.glob("*.weights")) == []
