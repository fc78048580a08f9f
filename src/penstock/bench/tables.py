"""Measured levels and points for the terminal and the page."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType

from penstock.bench.points import Point
from penstock.bench.serve import METRICS, Report
from penstock.report import svg
from penstock.report.tables import number, spread_cells, table

NAMES = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2e": "end to end"}


def render(report: Report) -> Group:
    """Throughput and latency by concurrency, then errors and notes."""
    options, machine, target = report.options, report.machine, report.target
    head = (
        f"{target.model} at {options.url}, {options.endpoint}, {options.input_len} tokens in, "
        f"{options.output_len} out, {options.shared_prefix_len} shared, "
        f"seed {target.prompts.seed}; client on {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['date']}"
    )
    parts: list[RenderableType] = [head, _throughput(report), _latency(report)]
    parts += _roofline(report)
    for level in report.levels:
        for cause, count in level.errors.items():
            said = f"{cause}: {level.error_details[cause]}".rstrip(": ")
            parts.append(f"concurrency {level.concurrency}: {count} failed: {said}")
    parts += [f"note: {note}" for note in report.notes]
    return Group(*parts)


def _throughput(report: Report) -> RenderableType:
    columns = ("concurrency", "ok", "failed", "requests/s", "output tok/s", "total tok/s", "cached")
    rows = [
        (
            str(level.concurrency),
            str(level.completed),
            str(level.requests - level.completed),
            number(level.requests_per_s, 2),
            number(level.output_tokens_per_s),
            number(level.total_tokens_per_s),
            f"{level.cached_tokens / max(1, level.input_tokens):.0%}",
        )
        for level in report.levels
    ]
    return table("Throughput", columns, rows)


def _latency(report: Report) -> RenderableType:
    rows = [
        (NAMES[metric], str(level.concurrency), *spread_cells(getattr(level, f"{metric}_s")))
        for metric in METRICS
        for level in report.levels
    ]
    return table("Latency, ms", ("", "concurrency", "mean", "p50", "p95", "p99"), rows)


def _roofline(report: Report) -> list[RenderableType]:
    """A server that is a Penstock tells what its steps had to do."""
    rows = [
        (
            str(level.concurrency),
            str(found.steps),
            number(found.bytes_per_step / 1e6),
            number(found.operations_per_step / 1e9, 2),
            number(found.floor_s * 1e3, 2) if found.floor_s else "-",
            number(found.measured_s * 1e3, 2),
            f"{found.fraction:.0%}" if found.floor_s else "-",
            found.bound or "-",
        )
        for level in report.levels
        if (found := level.roofline) is not None
    ]
    names = ("concurrency", "steps", "MB", "G operations", "floor, ms", "measured, ms")
    columns = (*names, "floor / measured", "bound")
    return [table("Roofline of the server's steps, means", columns, rows)] if rows else []


def points_table(points: Sequence[Point]) -> RenderableType:
    """Serial, rates and burst side by side; requests/s first."""
    columns = (
        "point", "requests/s", "output tok/s", "goodput", "TTFT p50", "TTFT p99", "ITL p50",
        "ITL p99", "promises",
    )  # fmt: skip
    rows = []
    for point in points:
        summary = point.summary
        ttft, itl = summary.metrics["ttft_s"].at, summary.metrics["itl_s"].at
        kept = summary.verdict is not None and summary.verdict.passed
        rows.append(
            (
                point.name, number(summary.requests_per_s, 3),
                number(summary.output_tokens_per_s), number(summary.goodput_per_s, 3),
                *(number(1e3 * m[q].value) for m in (ttft, itl) for q in ("p50", "p99")),
                "kept" if kept else "BROKEN",
            )
        )  # fmt: skip
    return table("Points (latency in ms)", columns, rows)


def points_page(points: Sequence[Point]) -> list[str]:
    """Plots over the rate that was reached."""
    ordered = sorted(points, key=lambda point: point.summary.requests_per_s)

    def curve(metric: str, q: str) -> list[tuple[float, float]]:
        return [
            (p.summary.requests_per_s, 1e3 * p.summary.metrics[metric].at[q].value)
            for p in ordered
            if p.summary.metrics[metric].count
        ]

    tokens = [(p.summary.requests_per_s, p.summary.output_tokens_per_s) for p in ordered]
    shown = [
        svg.lines("Output by rate", "requests/s", "tok/s", [("output tokens/s", tokens)]),
        *(
            svg.lines(f"{name} by rate", "requests/s", "ms",
                      [(q, curve(metric, q)) for q in ("p50", "p99")])
            for metric, name in (("ttft_s", "TTFT"), ("itl_s", "ITL"))
        ),
    ]  # fmt: skip
    return [plot for plot in shown if plot]
