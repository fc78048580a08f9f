from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.cli import main
from penstock.core.step_time import StepTime
from penstock.sim.costs import FittedCosts
from penstock.workload import file
from penstock.workload.archetypes import PRESETS
from tests.sim.parts import COSTS
from tests.sizing.models import LLAMA_8B

SMALL = ("--duration-s", "40", "--hardware", "H100")


@pytest.fixture
def workload(tmp_path: Path) -> str:
    """A chatbot's at an eighth of its rate."""
    path = tmp_path / "w.toml"
    rates = {"mean_per_s": 0.5, "p95_per_s": 1.0, "peak_per_s": 2.0}
    base = PRESETS["chatbot"]()
    arrivals = replace(base.arrivals, seasons=(), **rates)
    short = replace(base, arrivals=arrivals, window=replace(base.window, duration_s=1200.0))
    path.write_text(file.to_toml(short))
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B | {"max_position_embeddings": 65536}))
    return str(path)


def simulate(workload: str) -> list[str]:
    return ["simulate", workload, "--model", str(Path(workload).parent / "config.json")]


def test_a_fleet_is_simulated_and_written(
    workload: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, page = tmp_path / "run.json", tmp_path / "run.html"
    fleet = ("--replicas", "2", "--max-replicas", "4", "--target-concurrency", "2")
    files = ("--json", str(run), "--html", str(page))
    code = main([*simulate(workload), *SMALL, *fleet, *files])
    told = capsys.readouterr().out
    assert code == 0, told
    assert "replica hours" in told
    assert "pass  ttft p95" in told
    data = json.loads(run.read_text())
    assert data["kind"] == "simulated"
    assert len(data["records"]) > 10
    assert "<svg" in page.read_text()


def test_it_prints_its_errors_beside_a_run(
    workload: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Against a run that was made with the same costs, all errors are zero; with others not."""
    own, other = tmp_path / "own.json", tmp_path / "other.json"
    own.write_text(json.dumps(COSTS.to_dict()))
    slower = StepTime(tuple(2 * weight for weight in COSTS.model.weights))
    other.write_text(json.dumps(FittedCosts(slower, 1e-4).to_dict()))
    run = str(tmp_path / "run.json")
    main([*simulate(workload), *SMALL, "--calibrate", str(own), "--json", run, "--seed", "3"])
    capsys.readouterr()
    main([*simulate(workload), *SMALL, "--calibrate", str(own), "--against", run])
    table = capsys.readouterr().out.rpartition("Simulated beside measured")[2]
    assert table.count("0.0%") == 4
    assert "+0.0 points" in table
    main([*simulate(workload), *SMALL, "--calibrate", str(other), "--against", run])
    assert "0.0%" not in capsys.readouterr().out.partition("ttft_p50_s")[2].partition("\n")[0]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--devices", "none.toml"), "none.toml"),
        (("--save-costs", "x.json"), "--calibrate"),
        (("--calibrate", "."), "no steps"),
        (("--max-replicas", "2", "--min-replicas", "3"), "min_replicas"),
    ],
)
def test_what_is_wrong_is_named(
    flags: tuple[str, ...],
    told: str,
    workload: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*simulate(workload), *SMALL, *flags]) == 2
    assert told in capsys.readouterr().err


def test_a_torn_last_line_is_passed_over_and_no_other(
    workload: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    log.mkdir()
    (log / "a.jsonl").write_text('{"t": "header"}\n{"t": "st')
    assert main([*simulate(workload), *SMALL, "--calibrate", str(log)]) == 2
    assert "no steps" in capsys.readouterr().err
    (log / "a.jsonl").write_text('{"t": "st\n{"t": "header"}\n')
    assert main([*simulate(workload), *SMALL, "--calibrate", str(log)]) == 2
    assert "a.jsonl:1" in capsys.readouterr().err
