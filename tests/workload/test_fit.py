"""A fitted file says again what the trace said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.errors import ConfigError
from penstock.workload import file
from penstock.workload.archetypes import chatbot
from penstock.workload.arrivals import rate_curve, summary
from penstock.workload.definition import Arrivals, Lengths, Prefix, Window
from penstock.workload.fit import fit
from penstock.workload.lengths import Distribution
from penstock.workload.sessions import Generator, ideal_reuse
from penstock.workload.traces import Row, Trace, parse

DATA = Path(__file__).parent.parent / "data" / "traces"
ONE = Distribution(kind="fixed", value=1.0)


def known() -> Trace:
    """Requests of a known workload, as though they had been recorded."""
    truth = replace(
        chatbot(),
        window=Window("2026-11-02", 3600.0),
        arrivals=Arrivals("gamma", 2.0, 4.0, 6.0, cv=2.0),
        sessions=replace(chatbot().sessions, turns=ONE, fan_out=ONE),
        lengths=Lengths(Distribution(p50=300.0, p95=2000.0, max=8000.0),
                        Distribution(p50=80.0, p95=500.0, max=2000.0), 0.6),
        prefix=Prefix(0.0, 0.0, ONE),
    )  # fmt: skip
    rows = [
        Row(r.at_s, r.input_tokens, r.output_tokens, line=i)
        for i, r in enumerate(Generator(truth, 2).requests())
    ]
    return Trace("known", "azure", tuple(rows))


def test_a_known_workload_is_found_again() -> None:
    fitted = fit(known(), chatbot(), "known.csv").workload
    arrivals, lengths = fitted.arrivals, fitted.lengths
    assert arrivals.process == "gamma"
    assert arrivals.mean_per_s == pytest.approx(2, rel=0.1)
    assert arrivals.peak_per_s == pytest.approx(6, rel=0.25)
    assert arrivals.cv == pytest.approx(2, rel=0.15)
    assert lengths.input_tokens.quantile(0.95) == pytest.approx(2000, rel=0.1)
    assert lengths.output_tokens.quantile(0.5) == pytest.approx(80, rel=0.1)
    assert lengths.correlation == pytest.approx(0.6, abs=0.05)
    text = file.to_toml(fitted)
    assert file.read(text, "fitted") == fitted
    assert summary(rate_curve(fitted, 0))[0] == pytest.approx(arrivals.mean_per_s, rel=0.02)


def test_shared_blocks_become_reuse() -> None:
    trace = parse((DATA / "mooncake_conversation.jsonl").read_text().splitlines(), "m")
    rows = tuple(replace(row, at_s=i * 2.0) for i, row in enumerate(trace.rows))
    fitted = fit(replace(trace, rows=rows), chatbot(), "m.jsonl").workload
    assert fitted.prefix.reuse_ideal > 0.03
    assert file.read(file.to_toml(fitted), "m") == fitted
    longer = replace(fitted, window=Window("2026-11-02", 10_000.0))
    made = ideal_reuse(Generator(longer).requests(sessions=2000))
    assert made == pytest.approx(fitted.prefix.reuse_ideal, rel=0.05)


def test_times_can_be_kept() -> None:
    fitted = fit(known(), chatbot(), "sub/known.csv", keep_times=True).workload
    assert (fitted.arrivals.process, fitted.arrivals.trace) == ("trace", "sub/known.csv")
    assert file.read(file.to_toml(fitted), "w") == fitted


def test_rates_alone_fill_the_arrivals() -> None:
    trace = parse((DATA / "servegen_total_rates.csv").read_text().splitlines(), "s.csv")
    made = fit(trace, chatbot(), "s.csv")
    calls = chatbot().calls_per_session
    mean = sum(rate for _, rate in trace.rates) / len(trace.rates)
    assert made.workload.arrivals.mean_per_s == pytest.approx(mean / calls, rel=1e-4)
    assert made.workload.window.duration_s == 86400
    assert any("rates only" in note for note in made.notes)


def test_a_trace_of_seconds_is_too_short() -> None:
    rows = [json.dumps({"timestamp": t, "input_length": 5, "output_length": 5}) for t in (0, 900)]
    with pytest.raises(ConfigError, match="too short"):
        fit(parse(rows, "t"), chatbot(), "t")
