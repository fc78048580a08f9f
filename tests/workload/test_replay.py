"""A replayed trace keeps times, lengths and shared blocks."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.workload.prefixes import EndlessCache, block_ids, length
from penstock.workload.replay import requests
from penstock.workload.traces import Row, Trace, parse

DATA = Path(__file__).parent.parent / "data" / "traces"


def test_times_lengths_and_blocks_are_the_trace_s() -> None:
    trace = parse((DATA / "mooncake_conversation.jsonl").read_text().splitlines(), "m")
    replayed = list(requests(trace))
    assert len(replayed) == len(trace.rows)
    for request, row in zip(replayed, trace.rows, strict=True):
        assert request.at_s == row.at_s
        assert length(request.prompt) == request.input_tokens == row.input_tokens
        assert request.output_tokens == row.output_tokens
    cache, shared = EndlessCache(), []
    seen: set[tuple[int, ...]] = set()
    for request, row in zip(replayed, trace.rows, strict=True):
        wanted = max((n for n in range(len(row.blocks) + 1) if row.blocks[:n] in seen), default=0)
        assert cache.matched(request.prompt) // 512 in (wanted, wanted - 1) or wanted == 0
        shared.append(wanted)
        cache.add(request.prompt)
        seen |= {row.blocks[:n] for n in range(len(row.blocks) + 1)}
    assert sum(shared) > 30
    assert len(block_ids(replayed[0].prompt, 512)) == replayed[0].input_tokens // 512


def test_speed_and_sessions() -> None:
    rows = (
        Row(0.0, 10, 5, id="1"),
        Row(4.0, 20, 5, id="2", parent="1"),
        Row(6.0, 9, 5),
        Row(8.0, 30, 5, id="3", parent="2"),
    )
    replayed = list(requests(Trace("t", "bailian", rows), "batch", speed=2.0))
    assert [r.at_s for r in replayed] == [0, 2, 3, 4]
    assert [r.turn for r in replayed] == [0, 1, 0, 2]
    assert len({r.session for r in replayed}) == 2
    assert {r.slo_class for r in replayed} == {"batch"}


def test_prompts_without_blocks_share_nothing() -> None:
    rows = (Row(0.0, 10, 5), Row(1.0, 10, 5))
    first, second = requests(Trace("t", "azure", rows))
    assert first.prompt != second.prompt
    assert first.prompt[0].tokens == pytest.approx(10)
