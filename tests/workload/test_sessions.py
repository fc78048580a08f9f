"""The stream of requests has the definition's lengths, turns, waits and prefix reuse."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import islice, pairwise
from statistics import fmean

import pytest

from penstock.errors import ConfigError
from penstock.workload.archetypes import PRESETS, background_agent, chatbot, fixed, lognormal
from penstock.workload.definition import Arrivals, Lengths, Prefix, PrefixNode, Window, Workload
from penstock.workload.prefixes import length
from penstock.workload.sessions import (
    Generator,
    TimedRequest,
    ideal_reuse,
    merge,
    promised_service,
)


def sample(workload: Workload, sessions: int, seed: int = 0) -> list[TimedRequest]:
    return list(Generator(workload, seed).requests(sessions=sessions))


def at(values: list[int], share: float) -> int:
    return sorted(values)[int(share * len(values))]


@pytest.mark.parametrize("name", PRESETS)
def test_lengths_and_reuse_are_within_five_percent(name: str) -> None:
    """Must hold 1."""
    workload = PRESETS[name]()
    requests = sample(workload, round(40_000 / workload.calls_per_session))
    inputs = [r.input_tokens for r in requests]
    outputs = [r.output_tokens for r in requests]
    for made, defined in (
        (inputs, workload.lengths.input_tokens),
        (outputs, workload.lengths.output_tokens),
    ):
        for share in (0.5, 0.95):
            assert at(made, share) == pytest.approx(defined.quantile(share), rel=0.05)
    assert ideal_reuse(iter(requests)) == pytest.approx(workload.prefix.reuse_ideal, rel=0.05)


def test_the_same_seed_gives_the_same_stream() -> None:
    short = replace(chatbot(), window=Window("2026-11-02", 86400.0))
    assert sample(short, 50, 4) == sample(short, 50, 4)
    assert sample(short, 50, 4) != sample(short, 50, 5)


def test_requests_are_whole() -> None:
    requests = sample(background_agent(), 60)
    by_id = {r.id: r for r in requests}
    assert len(by_id) == len(requests)
    assert [r.at_s for r in requests] == sorted(r.at_s for r in requests)
    for request in requests:
        assert length(request.prompt) == request.input_tokens >= 1
        assert request.output_tokens >= 1
        assert bool(request.parents) == (request.turn > 0)
        for parent in request.parents:
            assert by_id[parent].session == request.session
            assert by_id[parent].turn == request.turn - 1
            assert by_id[parent].at_s + request.wait_s == pytest.approx(request.at_s)


def test_prompts_of_a_session_grow_and_repeat_its_history() -> None:
    workload = replace(
        chatbot(),
        prefix=Prefix(0.0, 0.0, fixed(1)),
        lengths=Lengths(lognormal(500, 2000, 8000), fixed(20), session_correlation=0.9),
    )
    generator = Generator(replace(workload, prefix=Prefix(0.6, 0.5, fixed(1))))
    turns: dict[int, list[TimedRequest]] = defaultdict(list)
    for request in generator.requests(sessions=300):
        turns[request.session].append(request)
    kept = total = 0
    for session in turns.values():
        for before, after in pairwise(session):
            assert after.input_tokens >= before.input_tokens
            total += 1
            kept += after.prompt[0] == before.prompt[0]
    assert kept / total == pytest.approx(generator.keeping, abs=0.1)


def test_calls_per_session_are_as_defined() -> None:
    workload = background_agent()
    requests = sample(workload, 600)
    assert len(requests) / 600 == pytest.approx(workload.calls_per_session, rel=0.1)
    later = [r for r in requests if r.turn]
    tool = [r for r in later if r.wait_s != 1.0]
    assert len(tool) / len(later) == pytest.approx(0.95, abs=0.03)
    widths = defaultdict(int)
    for request in requests:
        widths[request.session, request.turn] += 1
    assert max(widths.values()) > 3
    assert fmean(widths.values()) == pytest.approx(1.77, rel=0.1)


def test_the_prefix_tree_is_a_tree() -> None:
    nodes = (
        PrefixNode("system", 300, weight=0.0),
        PrefixNode("tenant", 200, "system", weight=3.0, copies=4),
        PrefixNode("tools", 100, "tenant", weight=1.0),
    )
    workload = replace(
        chatbot(),
        sessions=replace(chatbot().sessions, turns=fixed(1)),
        lengths=Lengths(fixed(1000), fixed(10)),
        prefix=Prefix(0.525, 0.5, fixed(1), nodes),
    )
    requests = sample(workload, 4000)
    assert len({r.prompt[0] for r in requests}) == 1
    assert len({r.prompt[1].id for r in requests}) == 4
    depths = [len(r.prompt) - 1 for r in requests]
    assert depths.count(2) / len(depths) == pytest.approx(0.75, abs=0.03)
    assert len({r.prompt[2].id for r in requests if len(r.prompt) == 4}) == 4
    assert ideal_reuse(iter(requests)) == pytest.approx(0.525, rel=0.05)


def test_impossible_reuse_names_what_is_possible() -> None:
    workload = replace(chatbot(), prefix=replace(chatbot().prefix, reuse_ideal=0.95))
    with pytest.raises(ConfigError, match=r"between 0\.\d+ and 0\.\d+") as caught:
        Generator(workload)
    assert caught.value.param == "prefix.reuse_ideal"


def test_answers_that_take_time_delay_what_waits_for_them() -> None:
    workload = chatbot()
    quick = {r.id: r for r in Generator(workload).requests(sessions=40)}
    service = promised_service(workload)
    slow = list(Generator(workload).requests(service, sessions=40))
    assert service(10, 101) == pytest.approx(0.45 + 100 * 0.04)
    by_id = {r.id: r for r in slow}
    for request in slow:
        assert replace(request, at_s=quick[request.id].at_s) == quick[request.id]
        for parent in request.parents:
            answered = by_id[parent].at_s + service(0, by_id[parent].output_tokens)
            assert request.at_s >= answered + request.wait_s - 1e-6


def test_merged_streams_stay_apart_and_in_order() -> None:
    first, second = sample(chatbot(), 30), sample(background_agent(), 5)
    both = list(merge(iter(first), iter(second)))
    assert len({r.id for r in both}) == len(first) + len(second)
    assert [r.at_s for r in both] == sorted(r.at_s for r in both)
    assert {r.slo_class for r in both} == {"interactive", "agent"}
    sessions = {r.id: r.session for r in both}
    assert all(sessions[p] == r.session for r in both for p in r.parents)


def test_regions_have_their_shares() -> None:
    found = [r.region for r in sample(chatbot(), 3000) if r.turn == 0]
    assert found.count("us-east") / len(found) == pytest.approx(0.6, abs=0.03)


def test_a_trace_is_no_business_of_the_generator() -> None:
    arrivals = Arrivals("trace", 1.0, 1.0, 1.0, trace="x.csv")
    with pytest.raises(ConfigError, match="trace"):
        Generator(replace(chatbot(), arrivals=arrivals))


def test_memory_stays_small_over_a_long_stream() -> None:
    """A week of requests is drawn as it is read, not before."""
    stream = Generator(chatbot()).requests()
    assert len(list(islice(stream, 1000))) == 1000
