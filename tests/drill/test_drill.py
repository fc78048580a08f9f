"""Must hold: the doctor names every injected fault from the logs alone, and a healthy run none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock.cli import main
from penstock.debug.doctor import RULES, examine, render_docs
from penstock.observe.reader import read
from tests.debug import runs
from tests.drill import faults, machines
from tests.drill.faults import FAULTS

FAST = (
    *("double-bos", "broken-characters", "escaped-text", "greedy-not-first", "runaway-loop"),
    *("lost-cache", "same-seeds", "queue-reply", "failing-requests", "preemption-thrash"),
)
"""Those that cost least; the others are run by make test-slow."""


def named(folder: Path) -> set[str]:
    findings = examine(read(folder))
    for finding in findings:
        assert finding.what
        assert finding.cause
        assert finding.next
    return {finding.fault for finding in findings}


@pytest.mark.parametrize("name", FAST)
def test_an_injected_fault_is_named(name: str, tmp_path: Path) -> None:
    FAULTS[name](tmp_path)
    assert named(tmp_path) == {name}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FAULTS.keys() - set(FAST)))
def test_every_other_fault_is_named(name: str, tmp_path: Path) -> None:
    FAULTS[name](tmp_path)
    assert named(tmp_path) == {name}


def test_a_healthy_run_is_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs.record(tmp_path, faults.healthy())
    assert main(["doctor", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["doctor", str(tmp_path)]) == 0
    assert f"0 findings by {len(RULES)} rules over 18 requests" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 10))
def test_nine_more_healthy_runs_are_silent(seed: int, tmp_path: Path) -> None:
    runs.record(tmp_path, faults.healthy(seed, count=20 + seed))
    if seed % 3 == 0:  # a restart, with nothing changed
        runs.record(tmp_path, faults.healthy(seed + 50))
    assert named(tmp_path) == set()


def test_what_the_command_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FAULTS["look-alikes"](tmp_path)
    assert main(["doctor", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert "look-alikes: 2 prompts look like another one" in shown
    assert "next step:    Normalise" in shown


def test_the_drill_is_large_enough() -> None:
    assert machines.FAULTS is FAULTS
    assert len(FAULTS) >= 16
    assert set(FAULTS) <= set(RULES)
    assert all(f"| `{name}` |" in render_docs() for name in RULES)
