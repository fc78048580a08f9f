from __future__ import annotations

import pytest

from penstock.debug.figures import GROUPS, LATENCIES, grouped, latencies
from penstock.errors import ConfigError
from penstock.observe.reader import Log
from tests.observe.test_recorder import Tape, opened, served


def test_figures_of_one_life() -> None:
    (record,) = served(Tape(), opened()).written("request")
    assert latencies(record) == {
        "e2e": [4.5],
        "ttft": [1.5],
        "tpot": [1.25],
        "itl": [2.0, 0.5],
        "stall": [2.0],
        "intake": [0.5],
        "tokenize": [],
        "queue": [1.5],
        "prefill": [0.5],
        "decode": [1.5],
        "reply": [0.5],
    }


def test_groups_add_up(log: Log) -> None:
    (whole,) = grouped(log.requests, "all")
    assert whole.requests == 69
    assert whole.output_rate > 0
    for by in GROUPS:
        groups = grouped(log.requests, by)
        assert sum(group.requests for group in groups) == 69
        assert sum(group.output_tokens for group in groups) == whole.output_tokens
    for name in LATENCIES:
        spread = whole.spread(name)
        assert spread.count > 0
        assert 0 <= spread.p50 <= spread.p95 <= spread.p99
    assert {group.name for group in grouped(log.requests, "finish")} >= {"length", "abort", "stop"}
    with pytest.raises(ConfigError, match="nothing to group by"):
        grouped(log.requests, "colour")
