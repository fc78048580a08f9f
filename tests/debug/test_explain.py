from __future__ import annotations

import pytest

from penstock.core.records import ChoiceRecord, Wait
from penstock.debug.explain import UNACCOUNTED, explain
from penstock.observe.reader import Log
from tests.observe.test_recorder import Tape, opened, served


def test_every_request_is_accounted_for(log: Log) -> None:
    assert len(log.requests) == 69
    for record in log.requests:
        for index in range(record.n):
            found = explain(log, record, index)
            assert found.total_s == record.sent
            assert sum(span.s for span in found.spans) == pytest.approx(found.total_s)
            assert 0.98 <= found.accounted <= 1.000001, found.spans
            for before, after in zip(found.spans, found.spans[1:], strict=False):
                assert before.end == after.begin


def test_what_the_mix_met_is_named(log: Log) -> None:
    names = {span.name for record in log.requests for span in explain(log, record).spans}
    assert {"prefill", "decode", "template and tokenizer", "to the engine"} <= names
    assert names & {"queue: max_num_seqs requests run", "queue: the KV cache is full"}
    preempted = [r for r in log.requests if r.preemptions]
    assert preempted, "the cache is small enough"
    details = [s.detail for r in preempted for i in range(r.n) for s in explain(log, r, i).spans]
    assert any("computed tokens lost" in detail for detail in details)


def test_one_life_span_by_span() -> None:
    (record,) = served(Tape(), opened()).written("request")
    found = explain(Log(), record)
    assert [(span.name, span.begin, span.end) for span in found.spans] == [
        ("the door", 0.0, 0.125),
        ("resolve parameters", 0.125, 0.25),
        ("to the engine", 0.25, 0.5),
        ("queue: the step under way", 0.5, 0.75),
        ("queue: max_num_seqs requests run", 0.75, 1.0),
        ("prefill", 1.0, 1.5),
        ("computed until preempted", 1.5, 2.0),
        ("queue: max_num_seqs requests run", 2.0, 3.0),
        ("prefill", 3.0, 3.5),
        ("decode", 3.5, 4.0),
        ("back from the engine, detokenizer", 4.0, 4.25),
        ("the other choices", 4.25, 4.5),
    ]
    assert found.spans[4].detail == "behind runner"
    assert found.spans[5].detail == "chunk 1: tokens 16 to 17; 16 from device"
    assert found.spans[6].detail == "preempted in step 6 for other: 3 computed tokens lost"
    assert next(iter(found.by_name())) == "queue: max_num_seqs requests run"


def test_what_no_instant_ends_is_not_hidden() -> None:
    (record,) = served(Tape(), opened()).written("request")
    record.choices[0] = ChoiceRecord(0, waits=[Wait("slots", 1.0)])
    record.ended, record.sent = 0.5, 4.5
    record.submitted = record.admitted = None
    found = explain(Log(), record)
    assert [(span.name, span.s) for span in found.spans] == [
        (UNACCOUNTED, 0.5),
        ("write the reply to the socket", 4.0),
    ]
    assert found.accounted == pytest.approx(4.0 / 4.5)
