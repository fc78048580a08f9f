"""A sizing answer, shown and as data."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console, RenderableType

from penstock.report.plan import details, hardware, ranking, refusals, to_dict
from penstock.sizing.demand import rates_of
from penstock.sizing.hardware import BUILT_IN, choose, table
from penstock.sizing.precision import PRECISIONS
from penstock.sizing.sizer import Answer, Scope, size
from penstock.workload.archetypes import chatbot
from penstock.workload.definition import Cost, Window
from tests.sizing.models import LLAMA_8B, shape


@pytest.fixture(scope="module")
def answer() -> Answer:
    workload = replace(
        chatbot(), window=Window("2026-11-02", 86400.0), cost=Cost(max_usd_per_mtok_blended=9.0)
    )
    scope = Scope(choose(["A100", "L4"], table()), [PRECISIONS["bf16"], PRECISIONS["fp8"]])
    return size(workload, shape(LLAMA_8B), rates_of(workload), scope)


def shown(item: RenderableType, width: int = 80) -> str:
    console = Console(file=StringIO(), width=width)
    console.print(item)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_tables_fit_a_terminal(answer: Answer) -> None:
    best = answer.plans[0]
    assert best.setup.name in shown(ranking(answer, 3))
    text = shown(details(best))
    for words in ("KV cache", "full", "more for failures", "buffer", "USD", "ttft p95"):
        assert words in text
    assert "A100 has no fp8" in " ".join(shown(refusals(answer, 9)).split())
    assert "…" not in shown(hardware(list(BUILT_IN)))


def test_data_is_json(answer: Answer) -> None:
    data = json.loads(json.dumps(to_dict(answer), allow_nan=False))
    assert len(data["plans"]) == len(answer.plans)
    assert data["plans"][0]["load"]["bound"] == answer.plans[0].load.bound
    assert {r["setup"] for r in data["refusals"]} == {r.setup.name for r in answer.refusals}
