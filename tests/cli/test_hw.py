"""`penstock hw …` from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.cli import main
from penstock.sizing.hardware import BUILT_IN, read_devices, write_devices


def test_show_tells_every_device_with_its_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["hw", "show"]) == 0
    shown = capsys.readouterr().out
    assert all(device.name in shown for device in BUILT_IN)
    assert "NVIDIA data sheet" in shown
    own = tmp_path / "own.toml"
    own.write_text(write_devices(BUILT_IN[1:2]).replace('"H100"', '"Mine"'))
    assert main(["hw", "show", "Mine", "--devices", str(own)]) == 0
    shown = capsys.readouterr().out
    assert "Mine" in shown
    assert "A100" not in shown


def test_measure_writes_an_entry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "here.toml"
    assert main(["hw", "measure", "here", "--device", "cpu", "--output", str(path)]) == 0
    (device,) = read_devices(path.read_text(), "here.toml")
    assert device.name == "here"
    assert "measured" in device.source
    assert "fill in its price" in capsys.readouterr().out
