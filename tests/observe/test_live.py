"""The last minutes: what the dashboard is told, and that memory stays bounded."""

from __future__ import annotations

import json

import pytest

from penstock.core.events import Event, Finished, Held, Preempted, Queued, Scheduled, TokensOut
from penstock.core.request import FinishReason, HoldReason
from penstock.engine.client import EngineStats
from penstock.observe import live
from penstock.observe.live import FIRST_S, GROWTH, Live, bucket


def stats(at: float, step: int, **values: float) -> EngineStats:
    return EngineStats(at=at, step=step, **values)  # type: ignore[arg-type]


def ended(id: str, at: float, output: int) -> Finished:
    return Finished(id, at, FinishReason.LENGTH, 10, output, cached_tokens=4, preemptions=1)


def one_life(sink: Live, id: str = "a", begin: float = 10.0) -> None:
    """Held, read, preempted, read again, two tokens 30 ms apart."""
    t = begin
    steps: list[tuple[float, list[Event]]] = [
        (t, [Queued(id, t, 10, arrived=t - 0.5), Held(id, t, HoldReason.PREFIX, "b")]),
        (t + 0.1, [Scheduled(id, t + 0.1, 1, 4, resumed=False)]),
        (t + 0.2, [Preempted(id, t + 0.2, 2, 6, "b")]),
        (t + 0.3, [Scheduled(id, t + 0.3, 3, 4, resumed=True), TokensOut(id, t + 0.5, 3, [7])]),
        (t + 0.53, [TokensOut(id, t + 0.53, 4, [8]), ended(id, t + 0.53, 2)]),
    ]
    for number, (at, events) in enumerate(steps):
        sink(events, stats(at, int(begin) * 10 + number, prefill_tokens=6, step_s=0.02))
    sink([], stats(begin + 1, int(begin) * 10 + len(steps)))


def test_a_bucket_tells_a_duration_within_half_its_growth() -> None:
    for seconds in (0.0003, 0.001, 0.0123, 0.5, 7.0, 300.0):
        middle = FIRST_S * GROWTH ** (bucket(seconds) - 0.5)
        assert middle == pytest.approx(seconds, rel=0.026)
    assert bucket(0) == bucket(FIRST_S) == 0


def test_a_second_sums_what_happened_in_it() -> None:
    sink = Live()
    one_life(sink)
    (second,) = sink.since(-1, 0)["seconds"]
    assert (second["at"], second["queued"], second["finished"]) == (10, 1, 1)
    assert (second["steps"], second["prefill_tokens"]) == (5, 30)
    assert (second["cached_tokens"], second["output_tokens"]) == (8, 2)
    assert second["preemptions"] == 1
    assert second["ttft"] == {bucket(1.0): 1}
    assert second["itl"] == {bucket(0.03): 1}
    assert second["e2e"] == {bucket(1.03): 1}


def test_the_page_asks_only_for_what_is_new() -> None:
    sink = Live()
    one_life(sink, "a", 10)
    one_life(sink, "b", 20)
    news = sink.since(10, 1)
    assert [s["at"] for s in news["seconds"]] == [11, 20]
    assert [row["id"] for row in news["finished"]] == ["b"]
    assert sink.since(20, news["serial"])["finished"] == []


def test_a_story_has_every_instant_from_the_arrival_on() -> None:
    sink = Live()
    one_life(sink)
    found = sink.story("a")
    assert found is not None
    kinds = [kind for _, kind, _ in found["marks"]]
    assert kinds == [
        "queued", "held", "scheduled", "preempted", "resumed", "tokens", "tokens", "finished",
    ]  # fmt: skip
    assert found["marks"][0][0] == pytest.approx(0.5)
    assert found["marks"][-1][0] == pytest.approx(found["e2e_s"])
    assert json.loads(json.dumps(found))["reason"] == "length"
    assert sink.story("unknown") is None


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = Live()
    for number in range(live.REQUESTS + 5):
        sink([Queued(str(number), 1.0, 1), ended(str(number), 1.0, 0)], stats(1.0, number))
    for second in range(2 * live.SECONDS):
        sink([], stats(float(second), 0))
    news = sink.since(-1, 0)
    assert len(news["finished"]) == live.REQUESTS
    assert len(news["seconds"]) == live.SECONDS - 1
    assert news["num_live"] == 0
    sink([Queued("long", 1.0, 1)], stats(1.0, 0))
    for number in range(3 * live.MARKS):
        sink([TokensOut("long", float(number), 0, [1])], stats(float(number), 0))
    found = sink.story("long")
    assert found is not None
    assert len(found["marks"]) == live.MARKS
    assert found["marks"][-1][0] == 3 * live.MARKS - 2


def test_several_engines_are_one_machine() -> None:
    sink = Live()
    sink([], stats(5.0, 1, engine=0, running=2, blocks_total=10, blocks_free=4, blocks_cached=1))
    sink([], stats(5.1, 1, engine=1, running=3, waiting=1, held=1, blocks_total=10, blocks_free=9))
    sink([], stats(6.0, 1, engine=0))
    (second,) = sink.since(-1, 0)["seconds"]
    assert (second["running"], second["waiting"]) == (5, 2)
    assert (second["blocks_total"], second["blocks_used"], second["blocks_cached"]) == (20, 6, 1)
