"""`penstock plan` from the command line."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from penstock.cli import main
from penstock.cli.plan import read_model
from tests.sizing.models import LLAMA_8B


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    workload, model = tmp_path / "w.toml", tmp_path / "config.json"
    assert main(["workload", "init", "chatbot", "--output", str(workload)]) == 0
    text = workload.read_text().replace("duration_s = 604800.0", "duration_s = 86400.0", 1)
    workload.write_text(
        text.replace("max_usd_per_mtok_output = 1.2", "max_usd_per_mtok_output = 9.0")
    )
    model.write_text(json.dumps(LLAMA_8B))
    return str(workload), str(model)


def test_a_plan_ends_in_a_command(
    files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workload, model = files
    out = tmp_path / "plan.json"
    options = ["--hardware", "H100", "--hardware", "A100", "--json", str(out)]
    assert main(["plan", workload, "--model", model, *options]) == 0
    shown = capsys.readouterr().out
    assert "efficiency-bound" in shown
    (line,) = [row for row in shown.splitlines() if row.startswith("  penstock serve")]
    assert shlex.split(line)[2] == model
    data = json.loads(out.read_text())
    assert data["plans"][0]["setup"]["name"] in shown
    assert data["plans"][0]["capacity"] > 0


def test_a_refusal_says_which_clause(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    workload, model = files
    path = Path(workload)
    path.write_text(path.read_text().replace("limit_s = 0.45", "limit_s = 0.001"))
    assert main(["plan", workload, "--model", model, "--hardware", "H100"]) == 3
    assert "misses ttft p95 <= 0.001 s even when idle" in capsys.readouterr().err


def test_own_devices_count(
    files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from penstock.sizing.hardware import BUILT_IN, write_devices

    own = tmp_path / "own.toml"
    own.write_text(write_devices(BUILT_IN[1:2]).replace('"H100"', '"Mine"'))
    workload, model = files
    options = ["--devices", str(own), "--hardware", "Mine", "--precision", "bf16"]
    assert main(["plan", workload, "--model", model, *options]) == 0
    assert "1 x Mine bf16" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--hardware", "H1000"], "is unknown"),
        (["--precision", "fp7"], "is unknown"),
        (["--precision", "fp4"], "runs none of fp4"),
        (["--headroom", "0"], "above 0"),
        (["--devices", "nowhere.toml"], "cannot be read"),
    ],
)
def test_wrong_options_are_named(
    options: list[str],
    words: str,
    files: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    workload, model = files
    assert main(["plan", workload, "--model", model, *options]) == 2
    assert words in capsys.readouterr().err


def test_models_are_named_in_three_ways(files: tuple[str, str]) -> None:
    model = Path(files[1])
    assert read_model("demo").vocab_size == 4096
    assert read_model(str(model)) == read_model(str(model.parent))
