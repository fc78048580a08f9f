from __future__ import annotations

import json

from penstock.debug.export import mooncake, perfetto
from penstock.observe.reader import Log
from penstock.workload import traces


def test_workload_reads_the_trace_back(log: Log) -> None:
    lines = list(mooncake(log))
    trace = traces.parse(lines, "exported")
    ran = [c.num_generated for r in log.requests for c in r.choices if c.num_generated]
    assert trace.format == "mooncake"
    assert [row.output_tokens for row in trace.rows] == ran
    assert {row.session for row in trace.rows} == {"", "s0", "s1", "s2"}


def test_perfetto(log: Log) -> None:
    events = json.loads("".join(perfetto(log)))["traceEvents"]
    spans = [event for event in events if event["ph"] == "X"]
    assert {"prefill", "decode", "step"} <= {span["name"] for span in spans}
    assert all(span["dur"] >= 0 for span in spans)
    rows = {event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert rows == {record.id for record in log.requests}
