"""`penstock batch run` with a real engine on random weights."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from benchmarks.make_checkpoint import make

from penstock.cli import main

ENGINE = ("--max-model-len", "256", "--kv-cache-memory-bytes", "4MiB", "--num-threads", "1")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny"
    make("tiny", path)
    return path


def chat(custom_id: str, text: str, **change: Any) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 6, "temperature": 0}
    return row(custom_id, "/v1/chat/completions", body | change)


def completion(custom_id: str, prompt: str, **change: Any) -> dict[str, Any]:
    body = {"prompt": prompt, "max_tokens": 6, "temperature": 0, "ignore_eos": True}
    return row(custom_id, "/v1/completions", body | change)


def row(custom_id: str, url: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def argv(source: Path, output: Path, model: Path) -> list[str]:
    return ["batch", "run", str(source), "-o", str(output), "--model", str(model), *ENGINE]


def read(path: Path) -> dict[str, dict[str, Any]]:
    results = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({r["custom_id"] for r in results}) == len(results)
    return {r["custom_id"]: r for r in results}


def test_rows_are_answered_as_the_server_answers(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [chat("a", "Hi"), completion("b", "Once"), completion("c", "Once"), chat("d", "Hi", n=2)]
    rows += [
        completion("unknown", "x", bogus=1),
        completion("long", "x" * 300),
        completion("model", "x", model="other"),
        completion("type", "x", max_tokens="many"),
    ]
    source, output = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    assert main(argv(source, output, model)) == 0
    assert "4 done, 4 failed of 8" in capsys.readouterr().out
    results = read(output)
    assert list(results) == [r["custom_id"] for r in rows]
    status = {name: r["response"]["status_code"] for name, r in results.items()}
    assert status == dict.fromkeys("abcd", 200) | {
        "unknown": 400,
        "long": 400,
        "model": 404,
        "type": 400,
    }
    body = {name: r["response"]["body"] for name, r in results.items()}
    assert body["b"]["choices"][0]["text"] == body["c"]["choices"][0]["text"]
    assert body["b"]["usage"]["completion_tokens"] == 6
    assert body["a"]["object"] == "chat.completion"
    assert len(body["d"]["choices"]) == 2
    assert body["unknown"]["error"]["code"] == "unsupported_field"
    assert all(r["response"]["request_id"] for r in results.values())


def test_a_finished_batch_needs_no_model(model: Path, tmp_path: Path) -> None:
    source, output = write(tmp_path / "in.jsonl", [completion("a", "x")]), tmp_path / "out.jsonl"
    assert main(argv(source, output, model)) == 0
    first = output.read_bytes()
    output.unlink()
    moved = model.rename(model.with_name("moved"))
    try:
        assert main(argv(source, output, model)) == 0
    finally:
        moved.rename(model)
    assert output.read_bytes() == first


def test_a_model_that_is_not_there_leaves_no_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = write(tmp_path / "in.jsonl", [completion("a", "x")]), tmp_path / "out.jsonl"
    assert main(argv(source, output, Path("/nowhere"))) == 1
    assert "/nowhere" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.slow
def test_killed_in_the_middle_each_row_is_there_once(model: Path, tmp_path: Path) -> None:
    count = 600
    rows = [completion(f"c{n}", f"prompt {n}", max_tokens=64) for n in range(count)]
    source, output = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "penstock.cli", *argv(source, output, model)]
    log = output.with_name("out.jsonl.state.sqlite-wal")
    for _ in range(2):
        with subprocess.Popen([*command, "--max-num-seqs", "4"]) as process:
            while not log.exists():
                time.sleep(0.01)
                assert process.poll() is None
            before = log.stat().st_size
            while log.stat().st_size < before + 40_000:  # some results are down
                time.sleep(0.01)
                assert process.poll() is None
            process.kill()
    assert not output.exists()
    subprocess.run(command, check=True)
    results = read(output)
    assert list(results) == [f"c{n}" for n in range(count)]
    assert {r["response"]["body"]["usage"]["completion_tokens"] for r in results.values()} == {64}
