from __future__ import annotations

import json

import pytest

from penstock.report.records import RequestRecord, from_dict


def record(number: int = 0, due_s: float = 1.0, late_s: float = 0.0) -> RequestRecord:
    """Sent `late_s` after it was due; four tokens, the third after a pause."""
    sent = due_s + late_s
    return RequestRecord(
        f"r{number}", due_s, 10, 4, 4, 2, sent_s=sent, first_s=sent + 0.5, last_s=sent + 1.3,
        end_s=sent + 1.3, longest_stall_s=0.6, gaps_s=[0.1, 0.6, 0.1],
    )  # fmt: skip


def test_latency_counts_from_when_it_was_due() -> None:
    """Coordinated omission: a late generator would otherwise make a slow server look quick."""
    late = record(late_s=2.0)
    assert late.ttft_s == pytest.approx(2.5)
    assert late.e2e_s == pytest.approx(3.3)
    assert late.lag_s == pytest.approx(2.0)
    assert late.tpot_s == pytest.approx(0.8 / 3)


def test_what_was_not_reached_has_no_duration() -> None:
    failed = RequestRecord("x", 1.0, 10, error="timeout", end_s=3.0)
    assert not failed.answered
    assert failed.ttft_s is failed.tpot_s is failed.queue_s is failed.lag_s is None
    assert failed.e2e_s == 2.0


def test_a_record_survives_json() -> None:
    for one in (record(), RequestRecord("x", 1.0, 10, error="timeout")):
        assert from_dict(json.loads(json.dumps(one.to_dict()))) == one
