from __future__ import annotations

from penstock.bench.roofline import Counters, parse, roofline
from penstock.engine.client import EngineStats
from penstock.observe.metrics import Metrics

BEFORE = Counters(10, 1.0, 1e9, 2e9, 0.5, {"memory": 9, "host": 1})
AFTER = Counters(14, 1.4, 5e9, 10e9, 0.6, {"memory": 10, "host": 1, "compute": 3})


def test_a_level_is_the_difference() -> None:
    found = roofline(BEFORE, AFTER)
    assert found is not None
    assert (found.steps, found.bytes_per_step, found.operations_per_step) == (4, 1e9, 2e9)
    assert round(found.floor_s, 9) == 0.025
    assert round(found.fraction, 9) == 0.25
    assert found.bound == "compute"


def test_nothing_is_said_without_steps_or_a_penstock() -> None:
    assert roofline(BEFORE, BEFORE) is None
    assert roofline(None, AFTER) is None
    assert parse("# HELP vllm:steps steps\nvllm:steps_total 3.0\n") is None


def test_the_page_of_a_server_is_read_over_all_engines() -> None:
    metrics = Metrics("a model")
    for engine, bound in ((0, "memory"), (1, "memory"), (1, "host")):
        stats = EngineStats(
            at=1.0,
            engine=engine,
            decode_tokens=1,
            step_s=0.25,
            bytes_moved=3e8,
            operations=5e9,
            floor_s=0.125,
            bound=bound,
        )
        metrics([], stats)
    found = parse(metrics.render().decode())
    assert found == Counters(3, 0.75, 9e8, 1.5e10, 0.375, {"memory": 2.0, "host": 1.0})
