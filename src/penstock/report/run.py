"""A run, measured or simulated: its records, and the same figures of both.

Only requests that were due inside the measured span count: before it the system warms up, after it
the load stops. Throughput is of what ended inside it.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from penstock.errors import ConfigError
from penstock.report import records as records_
from penstock.report.records import RequestRecord
from penstock.report.stats import Histogram, Interval, interval
from penstock.workload.definition import Availability, Clause
from penstock.workload.slo import Verdict, judge

FORMAT = "penstock-run"
SCHEMA = 1
PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
METRICS = ("ttft_s", "tpot_s", "itl_s", "ttlt_s", "queue_s")


@dataclass(slots=True)
class Run:
    """All that is kept of one."""

    kind: str
    """measured or simulated"""
    records: list[RequestRecord]
    begin_s: float
    """of the measured span, on the records' clock"""
    end_s: float
    clauses: tuple[Clause, ...] = ()
    availability: Availability | None = None
    load: dict[str, Any] = field(default_factory=dict)
    """where the requests came from: workload, seed, stretch"""
    about: dict[str, Any] = field(default_factory=dict)
    """server or engine, machine, command"""
    notes: list[str] = field(default_factory=list)
    gaps: Histogram | None = None
    """between tokens, where the records do not hold them; of the whole run"""

    @property
    def span_s(self) -> float:
        return self.end_s - self.begin_s

    @property
    def counted(self) -> list[RequestRecord]:
        """Requests that were due inside the measured span."""
        return [r for r in self.records if self.begin_s <= r.due_s < self.end_s]


@dataclass(frozen=True, slots=True)
class Metric:
    """Percentiles of one duration, in seconds."""

    count: int
    mean: float
    at: dict[str, Interval]
    """by name, as `p99.9`"""

    def to_dict(self) -> dict[str, Any]:
        shown = {name: one.to_dict() for name, one in self.at.items()}
        return {"count": self.count, "mean": None if math.isnan(self.mean) else self.mean, **shown}


@dataclass(frozen=True, slots=True)
class Stalls:
    """How often a reader sees the text stand still for longer than `limit_s`."""

    limit_s: float
    gap_share: float
    """of gaps between tokens"""
    answer_share: float
    """of answers with one such gap or more"""
    expected_share: float
    """the same if long gaps fell independently: 1 - (1 - gap_share)^gaps, a mean over answers"""


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of a run."""

    requests: int
    answered: int
    errors: dict[str, int]
    requests_per_s: float
    input_tokens_per_s: float
    output_tokens_per_s: float
    offered_per_s: float
    goodput_per_s: float
    """requests inside every clause"""
    hit_rate: float
    """prompt tokens that a prefix cache held"""
    metrics: dict[str, Metric]
    stalls: tuple[Stalls, ...]
    lag_p99_s: float
    """how late requests were sent"""
    calibration: float
    """median of predicted / actual TTFT, where servers predict; else nan"""
    verdict: Verdict | None


def summarise(run: Run) -> Summary:
    """Raises ConfigError when nothing was due inside the measured span."""
    found = run.counted
    if not found:
        raise ConfigError(
            "No request was due inside the measured span.",
            cure="Lengthen the run, or shorten --warm-up-s and --cool-down-s.",
        )
    good = [r for r in found if r.answered]
    ended = [r for r in run.records if r.answered and run.begin_s <= (r.end_s or 0.0) < run.end_s]
    span = max(run.span_s, 1e-9)
    metrics: dict[str, list[float | None]] = {
        "ttft_s": [r.ttft_s for r in good],
        "tpot_s": [r.tpot_s for r in good],
        "itl_s": [gap for r in good for gap in r.gaps_s],
        "ttlt_s": [r.e2e_s for r in good],
        "queue_s": [r.queue_s for r in good],
    }
    made = {name: _metric([v for v in many if v is not None]) for name, many in metrics.items()}
    if run.gaps is not None and not made["itl_s"].count:
        made["itl_s"] = _of_histogram(run.gaps)
    verdict = judge(run.clauses, found, run.availability)
    lags = sorted(lag for r in found if (lag := r.lag_s) is not None)
    ratios = sorted(r.predicted_ttft_s / r.ttft_s for r in good if r.predicted_ttft_s and r.ttft_s)
    return Summary(
        requests=len(found),
        answered=len(good),
        errors=dict(Counter(r.error for r in found if r.error).most_common()),
        requests_per_s=len(ended) / span,
        input_tokens_per_s=sum(r.input_tokens for r in ended) / span,
        output_tokens_per_s=sum(r.output_tokens for r in ended) / span,
        offered_per_s=len(found) / span,
        goodput_per_s=verdict.good / span,
        hit_rate=sum(r.cached_tokens for r in good) / max(1, sum(r.input_tokens for r in good)),
        metrics=made,
        stalls=_stalls(good),
        lag_p99_s=interval(lags, 99).value,
        calibration=interval(ratios, 50).value,
        verdict=verdict,
    )


def _metric(values: Sequence[float]) -> Metric:
    ordered = sorted(values)
    mean = math.fsum(ordered) / len(ordered) if ordered else math.nan
    return Metric(len(ordered), mean, {f"p{q:g}": interval(ordered, q) for q in PERCENTILES})


def _of_histogram(gaps: Histogram) -> Metric:
    nan = math.nan
    at = {f"p{q:g}": Interval(gaps.percentile(q), nan, nan) for q in PERCENTILES}
    return Metric(gaps.total, nan, at)


def _stalls(good: Sequence[RequestRecord]) -> tuple[Stalls, ...]:
    """At the median gap doubled, at its p95 and p99, and at a quarter of a second, which an eye
    sees."""
    told = [r.gaps_s for r in good if r.gaps_s]
    gaps = sorted(gap for many in told for gap in many)
    if not gaps:
        return ()
    limits = sorted(
        {2 * interval(gaps, 50).value, *(interval(gaps, q).value for q in (95, 99)), 0.25}
    )
    made = []
    for limit in limits:
        share = sum(gap > limit for gap in gaps) / len(gaps)
        seen = sum(max(many) > limit for many in told) / len(told)
        expected = sum(1 - (1 - share) ** len(many) for many in told) / len(told)
        made.append(Stalls(limit, share, seen, expected))
    return tuple(made)


# Files


def to_json(run: Run, summary: Summary) -> str:
    data = {
        "format": FORMAT,
        "schema": SCHEMA,
        "kind": run.kind,
        "begin_s": run.begin_s,
        "end_s": run.end_s,
        "load": run.load,
        "about": run.about,
        "notes": run.notes,
        "clauses": [asdict(clause) for clause in run.clauses],
        "availability": asdict(run.availability) if run.availability else None,
        "summary": summary_dict(summary),
        "records": [record.to_dict() for record in run.records],
    }
    return json.dumps(data) + "\n"


def summary_dict(summary: Summary) -> dict[str, Any]:
    """Plain data for JSON, which has no nan."""
    data = {
        name: getattr(summary, name)
        for name in Summary.__slots__
        if name not in ("metrics", "stalls", "verdict")
    }
    data = {name: None if value != value else value for name, value in data.items()}
    data["metrics"] = {name: metric.to_dict() for name, metric in summary.metrics.items()}
    data["stalls"] = [asdict(one) for one in summary.stalls]
    if verdict := summary.verdict:
        data["goodput"] = verdict.goodput
        data["passed"] = verdict.passed
        data["clauses"] = [
            {"clause": r.clause.name, "passed": r.passed, "value_s": None if r.value_s != r.value_s
             else r.value_s}
            for r in verdict.clauses
        ]  # fmt: skip
    return data


def from_json(text: str, name: str) -> Run:
    """The run that `to_json` wrote. Raises ConfigError naming what is not one."""
    try:
        data = json.loads(text)
        if data["format"] != FORMAT or data["schema"] != SCHEMA:
            raise ValueError(f"format {data['format']}, schema {data['schema']}")
        availability = data["availability"]
        return Run(
            data["kind"],
            [records_.from_dict(record) for record in data["records"]],
            data["begin_s"],
            data["end_s"],
            tuple(Clause(**clause) for clause in data["clauses"]),
            Availability(**availability) if availability else None,
            data["load"],
            data["about"],
            data["notes"],
        )
    except (ValueError, KeyError, TypeError) as error:
        cause = f"{name} is no run of this version: {type(error).__name__}: {error}."
        raise ConfigError(cause, cure="Give a file that --json wrote.") from None
