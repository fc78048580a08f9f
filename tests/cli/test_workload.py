"""`penstock workload …` from the command line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from penstock.cli import main
from penstock.workload import file
from penstock.workload.archetypes import PRESETS

DATA = Path(__file__).parent.parent / "data" / "traces"


def short(folder: Path) -> Path:
    """A chatbot's file of one day."""
    path = folder / "w.toml"
    assert main(["workload", "init", "chatbot", "--output", str(path)]) == 0
    path.write_text(path.read_text().replace("duration_s = 604800.0", "duration_s = 86400.0", 1))
    return path


@pytest.mark.parametrize("name", PRESETS)
def test_init_writes_a_file_that_checks(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["workload", "init", name]) == 0
    path = tmp_path / "w.toml"
    path.write_text(capsys.readouterr().out)
    assert main(["workload", "check", str(path)]) == 0
    shown = capsys.readouterr()
    assert "complete and consistent" in shown.out
    assert "owner still says 'fill in'" in shown.err


def test_init_overwrites_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = short(tmp_path)
    assert main(["workload", "init", "chatbot", "--output", str(path)]) == 2
    assert "the file exists" in capsys.readouterr().err


def test_check_names_every_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = short(tmp_path)
    text = path.read_text().replace("peak_per_s = 20.0", "").replace("schema = 1", "skema = 1")
    path.write_text(text)
    capsys.readouterr()
    assert main(["workload", "check", str(path)]) == 2
    shown = capsys.readouterr().err
    for words in ("arrivals.peak_per_s: is missing", "skema: is unknown", "3 to correct"):
        assert words in shown


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["workload", "check", "nowhere.toml"]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_show_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, page = short(tmp_path), tmp_path / "w.html"
    assert main(["workload", "show", str(path), "--html", str(page)]) == 0
    assert "peak / mean" in capsys.readouterr().out
    assert page.read_text().startswith("<!doctype html>")


def test_from_trace_reads_packed_files_and_replays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = tmp_path / "azure.csv.gz"
    packed.write_bytes(gzip.compress((DATA / "azure_conv.csv").read_bytes()))
    sub = tmp_path / "sub"
    sub.mkdir()
    made = sub / "w.toml"
    arguments = ["workload", "from-trace", str(packed), "--output", str(made)]
    assert main([*arguments, "--replay"]) == 0
    workload = file.read(made.read_text())
    assert workload.arrivals.trace == "../azure.csv.gz"
    assert main(["workload", "check", str(made)]) == 0
    assert main(["workload", "show", str(made)]) == 0
    assert main(["workload", "from-trace", str(packed)]) == 0
    assert "note: each request counts as a session" in capsys.readouterr().err


def test_holes_are_refused_until_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    times = [*range(200), *range(9000, 9200)]
    rows = [
        json.dumps({"timestamp": t * 1000, "input_length": 5, "output_length": 5}) for t in times
    ]
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(rows))
    assert main(["workload", "from-trace", str(path)]) == 2
    assert "t.jsonl:201: time: nothing for 8,801 s" in capsys.readouterr().err
    assert main(["workload", "from-trace", str(path), "--holes", "close"]) == 0
    assert "duration_s = 398.0" in capsys.readouterr().out


@pytest.mark.parametrize("tool", ["guidellm", "aiperf", "inference-perf"])
def test_export_writes_a_folder(
    tool: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = short(tmp_path), tmp_path / "out"
    arguments = ["workload", "export", str(path), "--tool", tool, "--output", str(out)]
    assert main([*arguments, "--start-s", "46800", "--duration-s", "60"]) == 0
    shown = capsys.readouterr()
    assert "requests written" in shown.out
    assert "note:" in shown.err
    assert sorted(p.name for p in out.iterdir()) == (
        ["config.yml", "trace.csv"] if tool == "inference-perf" else ["requests.jsonl"]
    )


def test_a_log_becomes_a_file_that_is_checked_and_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, made = tmp_path / "log", tmp_path / "w.toml"
    log.mkdir()
    lines = [
        {"t": "request", "id": f"r{i}", "received_s": 1e9 + 0.5 * i, "session": "",
         "num_prompt": 64, "num_output": 10 + i % 7, "prompt_ids": [i % 5] * 64, "finish": "stop"}
        for i in range(120)
    ]  # fmt: skip
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (log / "a-0.jsonl").write_text(text + '{"t": "req')
    assert main(["workload", "from-log", str(log), "-o", str(made)]) == 0
    assert "written from 120 lines" in capsys.readouterr().out
    assert main(["workload", "check", str(made)]) == 0
    for tool in ("guidellm", "aiperf", "inference-perf"):
        folder = ("-o", str(tmp_path / tool), "--duration-s", "30")
        assert main(["workload", "export", str(made), "--tool", tool, *folder]) == 0
    assert main(["workload", "from-log", str(tmp_path / "none")]) == 2
