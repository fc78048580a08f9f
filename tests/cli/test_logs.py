from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock.cli import main
from penstock.config import LogConfig
from penstock.observe.requestlog import RequestLog
from tests.observe.test_requestlog import serve_one


@pytest.fixture
def folder(tmp_path: Path) -> str:
    log = RequestLog(LogConfig(log_dir=str(tmp_path)), {"version": "0"})
    serve_one(log, "first")
    serve_one(log, "second")
    log.close()
    return str(tmp_path)


def test_tail_and_slowest(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", "tail", folder, "--last", "1"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert "second" in line
    assert "2 (16 cached) -> 3" in line
    assert main(["logs", "slowest", folder, "--of", "ttft"]) == 0
    assert "1500.0" in capsys.readouterr().out


def test_stats(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", "stats", folder]) == 0
    assert "2 requests, 0 errors, 2 preemptions" in capsys.readouterr().out
    assert main(["logs", "stats", folder, "--by", "session", "--json"]) == 0
    (group,) = json.loads(capsys.readouterr().out)
    assert (group["group"], group["latency_s"]["ttft"]["p50"]) == ("s", 1.5)


def test_explain(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", "explain", folder, "first"]) == 0
    assert "100.0 % of" in capsys.readouterr().out
    assert main(["logs", "explain", folder, "first", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["spans"][0]["name"] == "the door"
    assert main(["logs", "explain", folder]) == 2
    assert "logs tail" in capsys.readouterr().err
    assert main(["logs", "explain", folder, "first", "--choice", "3"]) == 2


def test_query(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", "query", folder, "SELECT id FROM requests ORDER BY id", "--csv"]) == 0
    assert capsys.readouterr().out.split() == ["id", "first", "second"]


def test_prefix_and_export(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", "prefix", folder]) == 0
    assert "1 turns, 1 leave" in capsys.readouterr().out
    assert main(["logs", "export", folder]) == 2
    trace, perfetto = str(tmp_path / "trace.jsonl"), str(tmp_path / "trace.json")
    assert main(["logs", "export", folder, "--trace", trace, "--perfetto", perfetto]) == 0
    assert len(Path(trace).read_text().splitlines()) == 2
    assert json.loads(Path(perfetto).read_text())["traceEvents"]
