from __future__ import annotations

from dataclasses import replace

import pytest

from penstock.core.autoscaler import Scaling
from penstock.report.records import RequestRecord
from penstock.report.stats import percentile
from penstock.sim.fleet import DETECTED_S, Fleet, FleetSpec
from penstock.workload.definition import Fault, Overload
from penstock.workload.sessions import TimedRequest
from tests.sim.parts import SLOW, engine, mixed, request


def run(spec: FleetSpec, requests: list[TimedRequest]) -> tuple[Fleet, dict[str, RequestRecord]]:
    fleet = Fleet(spec, requests)
    return fleet, {record.id: record for record in fleet.run()}


def test_every_request_ends_once_on_some_replica() -> None:
    requests = mixed(200, 60.0)
    fleet, records = run(FleetSpec(engine(), replicas=4), requests)
    assert len(fleet.records) == len(records) == 200
    assert {record.replica for record in records.values()} == {0, 1, 2, 3}
    for item in requests:
        record = records[str(item.id)]
        assert record.answered
        assert record.output_tokens == item.output_tokens
        assert record.due_s == pytest.approx(item.at_s)
        assert record.due_s <= record.scheduled_s <= record.first_s <= record.end_s  # type: ignore[operator]
    again, _ = run(FleetSpec(engine(), replicas=4), requests)
    assert again.records == fleet.records, "a simulation repeats itself"


def test_turns_wait_for_answers() -> None:
    first = request(0, 1.0)
    fork = [replace(request(i, 1.0), parents=(0,), wait_s=2.0, turn=1) for i in (1, 2)]
    join = replace(request(3, 1.0), parents=(1, 2), wait_s=0.5, turn=2)
    _, records = run(FleetSpec(engine(), replicas=2), [first, *fork, join])
    ends = [records[str(i)].end_s or 0.0 for i in range(4)]
    assert [records[str(i)].due_s for i in (1, 2)] == pytest.approx([ends[0] + 2.0] * 2)
    assert records["3"].due_s == pytest.approx(max(ends[1:3]) + 0.5)


def test_prefixes_draw_requests_to_the_same_replica() -> None:
    requests = [request(i, 2.0 * i, 200, 5, shared=160) for i in range(10)]
    fleet, records = run(FleetSpec(engine(), replicas=4), requests)
    assert len({record.replica for record in records.values()}) == 1
    assert [records[str(i)].cached_tokens for i in range(10)] == [0] + [160] * 9
    assert fleet.usage.busy_s > 0


@pytest.mark.parametrize("kind", ["crash", "unreachable"])
def test_requests_of_a_lost_replica_go_on_elsewhere(kind: str) -> None:
    requests = mixed(120, 40.0, seed=2)
    fault = Fault(kind, 1.0, 30.0)
    _, whole = run(FleetSpec(engine(), replicas=3), requests)
    _, records = run(FleetSpec(engine(), replicas=3, faults=(fault,)), requests)
    assert len(records) == 120
    assert all(record.answered for record in records.values())
    assert all(r.output_tokens == r.wanted_tokens for r in records.values())
    late = [r for r in records.values() if r.end_s > (whole[r.id].end_s or 0) + 0.01]  # type: ignore[operator]
    assert late
    if kind == "unreachable":
        assert max(r.longest_stall_s or 0.0 for r in records.values()) > DETECTED_S * 0.9


def test_a_slow_replica_is_slow_for_a_while() -> None:
    requests = [request(i, 3.0 * i, 60, 20) for i in range(3)]
    _, usual = run(FleetSpec(engine()), requests)
    _, slow = run(FleetSpec(engine(), faults=(Fault("slow", 2.5, 2.0, factor=4.0),)), requests)
    took = [[r.e2e_s for r in one.values()] for one in (usual, slow)]
    assert took[1][0] == pytest.approx(took[0][0])
    assert took[1][1] == pytest.approx(4 * took[0][1], rel=0.1)
    assert took[1][2] == pytest.approx(took[0][2])


def test_beyond_capacity_requests_are_shed_or_wait_so_long() -> None:
    requests = [request(i, 0.001 * i, 60, 40) for i in range(40)]
    spec = FleetSpec(engine(seqs=4), max_waiting=2, replicas=2)
    _, shed = run(replace(spec, overload=Overload("shed")), requests)
    refused = [r for r in shed.values() if r.error == "queue_full"]
    assert len(refused) == 40 - 12
    assert all(r.e2e_s == 0.0 for r in refused)
    _, patient = run(spec, requests)
    assert all(record.answered for record in patient.values())
    _, some = run(replace(spec, overload=Overload("queue", 0.7)), requests)
    waited = [r for r in some.values() if r.error]
    assert 0 < len(waited) < 28
    assert all(r.e2e_s == pytest.approx(0.7) for r in waited)


def ramp() -> list[TimedRequest]:
    """Quiet, a hill of two minutes, quiet again."""
    requests, at = [], 0.0
    while at < 400:
        rate = 1.0 + 14.0 * max(0.0, min(1.0, (at - 100) / 40, (220 - at) / 20))
        at += 1 / rate
        requests.append(request(len(requests), at, 60, 30))
    return requests


def scaled(start_s: float, fewest: int, buffer: int = 0) -> Fleet:
    scaling = Scaling(fewest, 5, buffer, target_concurrency=4.0, down_window_s=40.0)
    spec = FleetSpec(engine(1, 6, costs=SLOW), fewest, scaling, start_s, concurrency=4.0)
    fleet = Fleet(spec, ramp())
    fleet.run()
    return fleet


def p99(fleet: Fleet) -> float:
    return percentile([r.ttft_s for r in fleet.records if r.ttft_s is not None], 99)


def test_fixed_slow_and_fast_fleets_differ_as_they_should() -> None:
    """A fixed fleet pays for its peak all day; one that starts slowly is bad on both axes; one
    that starts fast is well used and keeps its promise."""
    fixed, slow, fast = scaled(0.0, 5), scaled(90.0, 1), scaled(3.0, 1, buffer=1)
    assert 0.2 < fixed.usage.utilisation < 0.45
    assert p99(fixed) < 0.2
    assert p99(slow) > 5.0
    assert p99(fast) < 0.5
    assert fast.usage.utilisation > 1.3 * fixed.usage.utilisation
    assert slow.usage.paid_s > fast.usage.paid_s
    assert fast.usage.most == 5
    assert [count for _, count, _ in fast.usage.counts][-1] <= 3, "back to few after the window"
    assert fast.usage.reversals <= 400 / 40
    for fleet in (fixed, slow, fast):
        assert all(record.answered for record in fleet.records)


def test_a_replica_that_is_stopped_ends_its_requests_first() -> None:
    requests = [request(i, 0.0, 60, 300 if i == 0 else 4) for i in range(12)]
    scaling = Scaling(1, 3, target_concurrency=4.0, down_window_s=2.0)
    spec = FleetSpec(engine(costs=SLOW), replicas=3, scaling=scaling, concurrency=4.0)
    fleet, records = run(spec, requests)
    assert all(record.answered for record in records.values())
    assert fleet.usage.paid_s < 3 * fleet.kernel.now()
