"""`penstock plan` from the command line."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from penstock.cli import main
from penstock.cli.inputs import read_model
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
    assert Path(shlex.split(line)[2]) == Path(model).parent
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


def test_what_this_version_cannot_run_is_hypothetical(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    workload, model = files
    options = ["--hardware", "H200", "--precision", "fp8"]
    assert main(["plan", workload, "--model", model, *options]) == 3
    assert "no fp8 weights on a GPU" in capsys.readouterr().err
    assert main(["plan", workload, "--model", model, *options, "--hypothetical"]) == 0
    assert "The best plan cannot be run: this version has no" in capsys.readouterr().out


def test_the_quality_gate_chooses_the_model(
    files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """REQUIREMENTS B3: the plan changes when the pass mark moves."""
    big = tmp_path / "big"
    big.mkdir()
    (big / "config.json").write_text(json.dumps(LLAMA_8B | {"num_hidden_layers": 40}))
    models = tmp_path / "models.toml"
    entry = '[[model]]\nconfig = "{}"\nscores = [{{ eval = "chat", score = {} }}]\n'
    models.write_text(entry.format("big", 0.9) + entry.format("config.json", 0.75))
    workload = Path(files[0])
    options = ["--models", str(models), "--hardware", "H200"]
    assert main(["plan", str(workload), *options]) == 0
    assert "passes the quality gates: config.json" in capsys.readouterr().out
    workload.write_text(workload.read_text().replace("min_score = 0.7", "min_score = 0.8"))
    assert main(["plan", str(workload), *options]) == 0
    shown = capsys.readouterr().out
    assert "Not good enough: config.json: chat 0.75 < 0.8" in shown
    assert "passes the quality gates: big" in shown


def test_own_devices_count(
    files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from penstock.sizing.hardware import BUILT_IN, write_devices

    own = tmp_path / "own.toml"
    own.write_text(write_devices(BUILT_IN[1:2]).replace('"H100"', '"Mine"'))
    workload, model = files
    options = ["--devices", str(own), "--hardware", "Mine", "--precision", "bf16"]
    assert main(["plan", workload, "--model", model, *options]) == 0
    assert " x Mine bf16" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--hardware", "H1000"], "is unknown"),
        (["--precision", "fp7"], "is unknown"),
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
