from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from penstock.cli import main
from penstock.observe.reader import read
from tests.debug import runs


async def few(llm: object) -> None:
    for i in range(3):
        await runs.ask(llm, runs.text(i, 6), max_tokens=6)  # type: ignore[arg-type]


def test_one_request_and_an_audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path)
    runs.record(tmp_path, few)
    name = read(tmp_path).requests[1].id
    capsys.readouterr()
    assert main(["replay", folder, name, "--num-threads", "1"]) == 0
    assert "1 of 1 requests the same, 6 tokens compared" in capsys.readouterr().out
    assert main(["replay", folder, "--all", "--sample", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(item["same"], item["tokens"]) for item in found] == [(True, 6)] * 2
    (segment,) = tmp_path.glob("*.jsonl")
    text = re.sub(r'"seed":[0-9]+,"given', '"seed":5,"given', segment.read_text())
    segment.write_text(text)
    assert main(["replay", folder, "--all"]) == 1
    assert "in place of" in capsys.readouterr().out


def test_nothing_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(tmp_path)]) == 2
    assert "holds no segments" in capsys.readouterr().err
