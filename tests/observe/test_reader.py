from __future__ import annotations

from pathlib import Path

import pytest

from penstock.config import LogConfig
from penstock.core.records import Begin, Note, Steps
from penstock.errors import ConfigError
from penstock.observe.reader import Faults, StepTable, read, records
from penstock.observe.requestlog import RequestLog
from penstock.observe.segments import line
from tests.observe.test_requestlog import serve_one


def test_no_folder_no_segments(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no segments"):
        read(tmp_path)
    with pytest.raises(ConfigError, match="is no folder"):
        read(tmp_path / "nowhere")


def test_lines_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    good = line(Note(1.0, "k", "text"))
    bad = b'{"t":"note","at":"soon"}\n{"t":"note","at":1.0,"ki\nno json\n{"t":"new","a":1}\n\xff\n'
    (tmp_path / "20260101T000000-aaaaaa-000001.jsonl").write_bytes(good + bad + good + good[:-4])
    faults = Faults()
    found = [record.text for _, record in records(tmp_path, faults=faults)]
    assert found == ["text", "text"]
    assert faults == Faults(torn=1, broken=4, unknown=1)


def test_fields_of_a_later_version_are_passed_over(tmp_path: Path) -> None:
    text = b'{"t":"begin","id":"a","call":"c","received_s":1,"num_prompt":2,"n":1,"colour":"red"}\n'
    (tmp_path / "20260101T000000-aaaaaa-000001.jsonl").write_bytes(text)
    assert read(tmp_path).begins["a"][1] == Begin("a", "c", 1.0, 2, 1)


def test_finding_a_request(tmp_path: Path) -> None:
    log = RequestLog(LogConfig(log_dir=str(tmp_path)), {"version": "0"})
    for id in ("abc", "abd"):
        serve_one(log, id)
    log.close()
    found = read(tmp_path)
    assert found.find("abc").id == "abc"
    assert found.find("c").id == "abc", "the client's id: both are prompts of one call"
    with pytest.raises(ConfigError, match="no finished request 'x'"):
        found.find("x")
    found.requests[0].call = "other"
    with pytest.raises(ConfigError, match="Give one: abc, abd"):
        found.find("ab")


def test_steps_by_time() -> None:
    zeros = [0, 0, 0]
    part = Steps(
        0, [1.0, 2.0, 3.0], [7, 8, 9], [500_000] * 3, zeros, zeros, zeros, [1, 2, 3], zeros, zeros,
        zeros, zeros, zeros, zeros, 10, 4, 0, 0, {"roof_s": [0.1, 0.2, 0.3]},
    )  # fmt: skip
    table = StepTable()
    table.add(part)
    assert [row.step for row in table.between(1.0, 3.0)] == [8, 9]
    assert table.ending(1.5) == table.rows[1]
    assert table.ending(3.5) is None
    assert (table.rows[0].step_s, table.rows[2].more, table.preemptions) == (
        0.5,
        {"roof_s": 0.3},
        4,
    )
