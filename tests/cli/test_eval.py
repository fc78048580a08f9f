from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock.cli import main
from tests.evals.readers import checkpoint
from tests.vocabularies import TEXTS, byte_level_json, write_folder


@pytest.fixture(scope="module")
def argv(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("eval")
    model = write_folder(checkpoint(folder, vocab_size=512), byte_level_json())
    (folder / "text").write_text("\n".join(TEXTS), encoding="utf-8")
    return ["eval", str(model), "--text", str(folder / "text"), "--num-threads", "1"]


def test_a_report_and_a_file(
    argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "report.json"
    assert main([*argv, "--quantization", "int8", "--max-kl", "1", "--json", str(file)]) == 0
    captured = capsys.readouterr()
    assert "passed" in captured.out
    assert captured.err == ""
    data = json.loads(file.read_text())
    assert data["total"]["kl_mean"] > 0
    assert data["config"]["model"]["quantization"] == "int8"


def test_a_model_that_strayed_too_far_fails(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    bounds = ["--max-kl", "1e-9", "--min-agreement", "1"]
    assert main([*argv, "--quantization", "int4", *bounds]) == 1
    assert "FAILED" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--quantization", "int5"], "--quantization"),
        (["--json", "no/such/folder"], "--json"),
        (["--reference-dtype", "int8"], "--reference-dtype"),
    ],
)
def test_wrong_flags_are_told(
    argv: list[str], flags: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*argv, *flags]) == 2
    assert named in capsys.readouterr().err
