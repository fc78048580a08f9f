"""A run as one self-contained page with plots."""

from __future__ import annotations

import math
from collections.abc import Sequence

from penstock.report import svg
from penstock.report.run import METRICS, Run, Summary
from penstock.report.run_tables import NAMES, cell, figures, verdict_lines
from penstock.report.stats import percentile

BINS = 120


def page(
    run: Run,
    summary: Summary,
    title: str,
    more: Sequence[tuple[str, str]] = (),
    plots: Sequence[str] = (),
) -> str:
    """more: further rows of figures; plots: further ones, shown first."""
    parts = [svg.rows("Figures", [*figures(run, summary), *more]), *plots]
    if lines := verdict_lines(summary):
        parts.append(svg.rows("Promises", [(line[:4], line[6:]) for line in lines]))
    for name in METRICS:
        metric = summary.metrics[name]
        if metric.count:
            shown = [(label, cell(one)) for label, one in metric.at.items()]
            parts.append(svg.rows(f"{NAMES[name]}, ms", shown))
    parts += drawn(run)
    if summary.stalls:
        shown = [
            (f"pauses > {1e3 * s.limit_s:.0f} ms", f"{s.gap_share:.2%} of gaps, "
             f"{s.answer_share:.1%} of answers ({s.expected_share:.1%} if independent)")
            for s in summary.stalls
        ]  # fmt: skip
        parts.append(svg.rows("Stalls", shown))
    parts += [svg.rows("Notes", [("", note) for note in run.notes])] if run.notes else []
    about = [(name, str(value)) for name, value in (run.about | run.load).items()]
    return svg.page(title, [*parts, svg.rows("How it was made", about)])


def drawn(run: Run) -> list[str]:
    """Load and latency over time, and the distributions of latency."""
    good = [r for r in run.records if r.answered]
    ttft = [(r.due_s, 1e3 * r.ttft_s) for r in good if r.ttft_s is not None]
    parts = [
        svg.lines("Open requests", "seconds", "requests", [("open", concurrency(run))]),
        svg.lines(
            "TTFT over time", "seconds", "ms",
            [(name, over_time(ttft, q)) for name, q in (("p50", 50.0), ("p99", 99.0))],
        ),
        svg.lines(
            "How many requests were how quick", "ms", "share",
            [
                (NAMES[name], distribution(values))
                for name, values in (
                    ("ttft_s", [value for _, value in ttft]),
                    ("ttlt_s", [1e3 * r.e2e_s for r in good]),
                )
            ],
        ),
        svg.histogram("Gaps between tokens", "ms (logarithmic)",
                      [1e3 * gap for r in good for gap in r.gaps_s]),
    ]  # fmt: skip
    return [part for part in parts if part]


def concurrency(run: Run) -> list[tuple[float, float]]:
    """(second, requests between due and end)."""
    changes = sorted(
        [(r.due_s, 1) for r in run.records]
        + [(r.end_s, -1) for r in run.records if r.end_s is not None]
    )
    if not changes:
        return []
    step = max(changes[-1][0] / BINS, 1e-9)
    points: list[tuple[float, float]] = []
    open_now = most = 0
    for at, change in changes:
        while at > (len(points) + 1) * step:
            points.append((len(points) * step, most))
            most = open_now
        open_now += change
        most = max(most, open_now)
    return points


def over_time(points: Sequence[tuple[float, float]], q: float) -> list[tuple[float, float]]:
    """A percentile of the values in each of equal stretches of time."""
    if not points:
        return []
    step = max(max(at for at, _ in points) / 60, 1e-9)
    groups: dict[int, list[float]] = {}
    for at, value in points:
        groups.setdefault(int(at / step), []).append(value)
    return [(place * step, percentile(groups[place], q)) for place in sorted(groups)]


def distribution(values: Sequence[float]) -> list[tuple[float, float]]:
    """(value, share of values up to it), up to the 99.5th percentile."""
    ordered = sorted(values)
    if not ordered:
        return []
    last = math.ceil(0.995 * (len(ordered) - 1))
    return [
        (ordered[place], (place + 1) / len(ordered))
        for place in sorted({round(i * last / BINS) for i in range(BINS + 1)})
    ]
