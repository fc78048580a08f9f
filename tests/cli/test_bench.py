from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.cli import main
from penstock.workload import file
from penstock.workload.archetypes import PRESETS, fixed
from penstock.workload.definition import Arrivals, Clause, Lengths, Prefix
from tests.bench.fake_server import Body, FakeServer, Reply, tokens

SHORT = ("--input-len", "4", "--output-len", "3", "--num-requests", "2")


def good(path: str, body: Body) -> Reply:
    return 200, tokens(body)


def full(path: str, body: Body) -> Reply:
    """Takes the first request, the probe, alone."""
    if body["max_tokens"] == 2:
        return good(path, body)
    return 429, {"error": {"message": "full", "code": "queue_full"}}


async def test_a_table_and_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "report.json"
    async with FakeServer(good) as server:
        argv = ["bench", "serve", "--url", server.url, *SHORT, "--concurrency", "1,2"]
        assert await asyncio.to_thread(main, [*argv, "--json", str(file)]) == 0
    captured = capsys.readouterr()
    assert "Throughput" in captured.out
    assert "Latency" in captured.out
    assert captured.err == ""
    assert [level["completed"] for level in json.loads(file.read_text())["levels"]] == [2, 2]


async def test_a_level_without_a_reply_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    async with FakeServer(full) as server:
        argv = ["bench", "serve", "--url", server.url, *SHORT, "--concurrency", "1"]
        assert await asyncio.to_thread(main, argv) == 1
    assert "queue_full" in capsys.readouterr().out


async def test_a_file_that_cannot_be_written_is_told_before_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with FakeServer(good) as server:
        argv = ["bench", "serve", "--url", server.url, *SHORT]
        file = str(tmp_path / "none" / "report.json")
        assert await asyncio.to_thread(main, [*argv, "--json", file]) == 2
    assert "--json" in capsys.readouterr().err
    assert server.bodies == []


async def test_a_workload_is_run_judged_and_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load, run, page = (tmp_path / name for name in ("w.toml", "run.json", "run.html"))
    base = PRESETS["chatbot"]()
    small = replace(
        base,
        window=replace(base.window, duration_s=60.0),
        arrivals=Arrivals("constant", 20.0, 20.0, 20.0),
        sessions=replace(base.sessions, turns=fixed(1)),
        lengths=Lengths(fixed(12), fixed(3)),
        prefix=Prefix(0.0, 0.0, fixed(1)),
        slo=(Clause("ttft_s", 50, 1e-6),),
    )
    load.write_text(file.to_toml(small))
    async with FakeServer(good) as server:
        argv = ["bench", "run", str(load), "--url", server.url, "--duration-s", "0.5"]
        times = ("--warm-up-s", "0", "--cool-down-s", "0", "--check")
        files = ("--json", str(run), "--html", str(page))
        code = await asyncio.to_thread(main, [*argv, *times, *files])
    told = capsys.readouterr().out
    assert code == 10, "the first promise is broken"
    assert "FAIL  ttft p50" in told
    assert "penstock simulate" in told
    assert len(json.loads(run.read_text())["records"]) == 10
    assert "<svg" in page.read_text()
    assert await asyncio.to_thread(main, ["bench", "compare", str(run), str(run), "--check"]) == 0
    assert "same" in capsys.readouterr().out
