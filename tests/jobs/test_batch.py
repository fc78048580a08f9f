from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import ConfigError
from penstock.jobs.batch import Batch
from penstock.jobs.store import Counts
from tests.jobs.fake_api import FakeApi


def request(custom_id: object, prompt: str = "abc", **change: Any) -> str:
    body = {"prompt": prompt} | change.pop("body", {})
    line = {"custom_id": custom_id, "method": "POST", "url": "/v1/completions", "body": body}
    return json.dumps(line | change)


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines))
    return path


def run(input: Path, output: Path, model: str = "fake") -> Counts:
    with Batch(input, output, model) as batch:
        asyncio.run(batch.run(FakeApi(), concurrency=3))
        batch.export()
        return batch.counts


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_line_has_its_result_in_order(tmp_path: Path) -> None:
    lines = [
        request("a"),
        "{ no json",
        "",
        request("b", url="/v1/audio"),
        request("a", "again"),
        request(None),
        request("ü", "é😀"),
        request("e", body={"status": 400}),
    ]
    counts = run(write(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl")
    assert counts == Counts(done=2, failed=5)
    results = read(tmp_path / "out.jsonl")
    assert [r["id"] for r in results] == [f"batch_req_{n}" for n in (1, 2, 4, 5, 6, 7, 8)]
    assert [r["custom_id"] for r in results] == ["a", None, "b", "a", None, "ü", "e"]
    assert [r["error"] and r["error"]["code"] for r in results] == [
        None,
        "invalid_json",
        "invalid_url",
        "duplicate_custom_id",
        "invalid_custom_id",
        None,
        None,
    ]
    assert results[0]["response"]["status_code"] == 200
    assert results[5]["response"]["body"]["text"] == "😀é"
    assert results[6]["response"]["status_code"] == 400


def test_a_finished_batch_runs_nothing_again(tmp_path: Path) -> None:
    source, output = write(tmp_path / "in.jsonl", [request("a"), request("b")]), tmp_path / "out"
    run(source, output)
    first = output.read_bytes()
    output.unlink()
    with Batch(source, output, "fake") as batch:
        assert batch.counts == Counts(done=2)
        batch.export()
    assert output.read_bytes() == first


def test_an_empty_input_gives_an_empty_output(tmp_path: Path) -> None:
    assert run(write(tmp_path / "in.jsonl", []), tmp_path / "out.jsonl") == Counts()
    assert (tmp_path / "out.jsonl").read_bytes() == b""


def test_a_changed_input_is_refused(tmp_path: Path) -> None:
    source, output = write(tmp_path / "in.jsonl", [request("a")]), tmp_path / "out.jsonl"
    run(source, output)
    write(source, [request("a"), request("b")])
    with pytest.raises(ConfigError, match="not the input that this batch was started with"):
        Batch(source, output, "fake")


def test_another_model_is_refused(tmp_path: Path) -> None:
    source, output = write(tmp_path / "in.jsonl", [request("a")]), tmp_path / "out.jsonl"
    run(source, output)
    with pytest.raises(ConfigError, match="started with the model fake, not other"):
        Batch(source, output, "other")


def test_a_foreign_output_is_not_overwritten(tmp_path: Path) -> None:
    source, output = write(tmp_path / "in.jsonl", [request("a")]), tmp_path / "out.jsonl"
    output.write_text("precious")
    with pytest.raises(ConfigError, match="belongs to no batch"):
        Batch(source, output, "fake")
    assert output.read_text() == "precious"


def test_paths_that_do_not_exist_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Batch(tmp_path / "in.jsonl", tmp_path / "out.jsonl", "fake")
    source = write(tmp_path / "in.jsonl", [request("a")])
    with pytest.raises(ConfigError, match="does not exist"):
        Batch(source, tmp_path / "nowhere" / "out.jsonl", "fake")


def test_an_input_may_move(tmp_path: Path) -> None:
    source, output = write(tmp_path / "in.jsonl", [request("a")]), tmp_path / "out.jsonl"
    Batch(source, output, "fake").__exit__(None, None, None)
    run(source.rename(tmp_path / "moved.jsonl"), output)
    assert len(read(output)) == 1


def test_killed_at_any_moment_each_row_is_there_once(tmp_path: Path) -> None:
    """kill -9 at random moments, from the first import of the input to the export."""
    count = 600
    source = write(tmp_path / "in.jsonl", [request(f"c{n}", f"p{n}") for n in range(count)])
    output = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "tests.jobs.fake_api", str(source), str(output)]
    kills, rng = 0, random.Random(1)
    while not output.exists():
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            if kills % 3 != 0:
                process.stdout.readline()  # most kills fall into the work itself
            try:
                process.wait(timeout=rng.uniform(0.02, 0.3))
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
        assert kills < 100
    assert kills >= 3
    assert subprocess.run(command, check=True, capture_output=True).returncode == 0
    results = read(output)
    assert [r["custom_id"] for r in results] == [f"c{n}" for n in range(count)]
    assert [r["response"]["body"]["text"] for r in results] == [f"p{n}"[::-1] for n in range(count)]


def test_two_processes_do_not_share_a_batch(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [request(f"c{n}") for n in range(2000)])
    output = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "tests.jobs.fake_api", str(source), str(output)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.05)
        with pytest.raises(ConfigError, match="another process works on it"):
            Batch(source, output, "fake")
        process.kill()
