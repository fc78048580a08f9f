from __future__ import annotations

from io import StringIO

from rich.console import Console

from penstock.evals.report import Report, figures
from penstock.evals.storage import Storage
from penstock.evals.tables import render
from tests.evals.test_report import scores


def shown(**bounds: float) -> str:
    setting = {
        "config": {"model": {"model": "demo", "quantization": "int8", "dtype": "auto"}},
        "machine": {"cpu": "a processor", "date": "2026-01-01"},
        "options": {"reference_dtype": "float32", "context": 512, "text": "tale.txt"},
    }
    total, buckets = figures(scores(), lambda token: 1)
    ours, theirs = {"embed": Storage(1000, 2000)}, {"embed": Storage(1000, 4000)}
    console = Console(file=StringIO(), width=160)
    console.print(render(Report(setting, total, buckets, theirs, ours, **bounds)))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_what_was_compared_and_what_came_out() -> None:
    text = shown()
    for part in ("demo: --quantization int8", "tale.txt", "16-63", "75.00 %", "16.00", "32.00"):
        assert part in text
    assert "FAILED" not in text
    assert "passed" not in text


def test_the_verdict_of_the_gate() -> None:
    assert "passed: all bounds hold" in shown(max_kl=1.0)
    assert "FAILED: mean KL 0.35 is above --max-kl 0.1" in shown(max_kl=0.1, min_agreement=0.1)
