from __future__ import annotations

import random
from typing import Any

import pytest

from penstock.errors import ConfigError
from penstock.workload import replay
from penstock.workload.requestlog import trace_of
from penstock.workload.sessions import ideal_reuse


def record(number: int, at_s: float, ids: list[int] | None, output: int = 5) -> dict[str, Any]:
    return {
        "t": "request", "id": f"r{number}", "received_s": at_s, "session": "s" if number else None,
        "num_prompt": len(ids) if ids is not None else 40, "num_output": output,
        "prompt_ids": ids, "finish": "length",
    }  # fmt: skip


def log(*records: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    return [(1, {"t": "header"}), *enumerate(records, 2), (99, {"t": "steps"})]


def test_requests_become_rows_in_order_of_time() -> None:
    later, first = record(1, 1003.0, [1] * 20), record(0, 1000.5, [2] * 40, output=7)
    trace = trace_of(log(later, first), "log")
    assert [(r.at_s, r.input_tokens, r.output_tokens) for r in trace.rows] == [
        (0.0, 40, 7),
        (2.5, 20, 5),
    ]
    assert [(r.id, r.session, r.line) for r in trace.rows] == [("r0", "", 3), ("r1", "s", 2)]


def test_shared_prefixes_are_exact() -> None:
    """Half of each prompt is common; an endless cache would hold it from the second on."""
    rng = random.Random(0)
    common = [rng.randrange(1000) for _ in range(64)]
    prompts = [common + [rng.randrange(1000) for _ in range(64)] for _ in range(50)]
    trace = trace_of(log(*(record(i, float(i), ids) for i, ids in enumerate(prompts))), "log")
    assert ideal_reuse(replay.requests(trace)) == pytest.approx(0.5 * 49 / 50)
    hidden = [record(i, float(i), None) for i in range(3)]
    assert ideal_reuse(replay.requests(trace_of(log(*hidden), "log"))) == 0.0


def test_what_was_not_answered_is_left_out_and_told() -> None:
    cut = record(0, 1.0, [1]) | {"finish": "abort"}
    trace = trace_of(log(cut, record(1, 2.0, [1, 2])), "log")
    assert len(trace.rows) == 1
    assert "1 lines left out: not answered" in trace.notes[0]


@pytest.mark.parametrize("field", ["received_s", "num_prompt", "finish", "prompt_ids"])
def test_what_is_missing_is_named(field: str) -> None:
    broken = record(0, 1.0, [1])
    del broken[field]
    with pytest.raises(ConfigError, match=f"log:2: {field}"):
        trace_of(log(broken), "log")


def test_an_empty_log_is_refused() -> None:
    with pytest.raises(ConfigError, match="no requests"):
        trace_of(log(), "log")
