"""Fields that contradict each other within the definition, and what it derives."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace

import pytest

from penstock.workload import definition
from penstock.workload.archetypes import PRESETS, chatbot, fixed, lognormal
from penstock.workload.definition import Arrivals, Cost, Fault, Prefix, PrefixNode, Spike, Window


@pytest.mark.parametrize("name", PRESETS)
def test_presets_contradict_nothing(name: str) -> None:
    workload = PRESETS[name]()
    parts = [getattr(workload, item.name) for item in fields(workload)]
    flat = [part for value in parts for part in (value if isinstance(value, tuple) else (value,))]
    checked = [workload, *(p for p in flat if is_dataclass(p) and hasattr(p, "problems"))]
    assert len(checked) > 6
    assert [list(part.problems()) for part in checked] == [[] for _ in checked]


def test_archetypes_differ_in_what_is_better() -> None:
    merits = [preset().figure_of_merit for preset in PRESETS.values()]
    assert len(set(merits)) == 3
    assert set(merits) == set(definition.MERITS)


def test_calls_per_session_multiplies_turns_and_fan_out() -> None:
    sessions = replace(chatbot().sessions, turns=fixed(3), fan_out=fixed(4))
    assert replace(chatbot(), sessions=sessions).calls_per_session == pytest.approx(12)
    assert definition.whole_mean(lognormal(0.1, 0.2, 0.4)) == 1


@pytest.mark.parametrize(
    ("nodes", "field"),
    [
        ((PrefixNode("a", 5, "b"), PrefixNode("b", 5, "a")), "nodes[0].parent"),
        ((PrefixNode("a", 5, "a"),), "nodes[0].parent"),
        ((PrefixNode("a", 5), PrefixNode("a", 6)), "nodes"),
        ((PrefixNode("a", 5, "nobody"),), "nodes[0].parent"),
        ((PrefixNode("a", 5, weight=0.0),), "nodes"),
    ],
)
def test_a_prefix_tree_must_be_one(nodes: tuple[PrefixNode, ...], field: str) -> None:
    problems = list(Prefix(0.5, 0.4, fixed(1), nodes).problems())
    assert field in [problem.field for problem in problems]


def test_events_lie_in_the_window() -> None:
    late = replace(
        chatbot(),
        window=Window("2026-11-02", 3600.0),
        arrivals=replace(chatbot().arrivals, spikes=(Spike(7200.0, 60.0, 2.0),)),
        faults=(Fault("crash", 9000.0, 60.0),),
    )
    assert [p.field for p in late.problems()] == ["arrivals.spikes[0].at_s", "faults[0].at_s"]


def test_bursts_are_not_shorter_than_what_a_rate_is_meant_over() -> None:
    arrivals = Arrivals("on_off", 1.0, 4.0, 8.0, on_s=5.0, off_s=60.0)
    assert [p.field for p in arrivals.problems()] == ["on_s"]


def test_a_cost_names_a_ceiling() -> None:
    assert [p.field for p in Cost().problems()] == ["max_usd_per_mtok_blended"]
