"""A run for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType

from penstock.report.run import METRICS, PERCENTILES, Run, Summary
from penstock.report.stats import Interval
from penstock.report.tables import number, table

NAMES = {
    "ttft_s": "TTFT", "tpot_s": "TPOT", "itl_s": "ITL", "ttlt_s": "end to end",
    "queue_s": "queue",
}  # fmt: skip


def render(run: Run, summary: Summary, more: Sequence[tuple[str, str]] = ()) -> Group:
    """Figures, latency, the SLO clause by clause, stalls, notes. more: further rows of figures."""
    facts = table(f"Run ({run.kind})", ("", ""), [*figures(run, summary), *more])
    facts.columns[1].justify = "left"
    parts: list[RenderableType] = [facts, latency(summary)]
    parts += verdict_lines(summary)
    if summary.stalls:
        rows = [
            (f"> {1e3 * s.limit_s:.1f}", *(f"{share:.2%}" for share in
             (s.gap_share, s.answer_share, s.expected_share)))
            for s in summary.stalls
        ]  # fmt: skip
        columns = ("pause, ms", "of gaps", "of answers", "if independent")
        parts.append(table("Stalls: answers with a pause", columns, rows))
    parts += [f"note: {note}" for note in run.notes]
    return Group(*parts)


def figures(run: Run, summary: Summary) -> list[tuple[str, str]]:
    errors = ", ".join(f"{count} {cause}" for cause, count in summary.errors.items())
    rows = [
        ("measured span", f"{run.begin_s:.1f} to {run.end_s:.1f} s"),
        ("requests", f"{summary.requests:,} due, {summary.answered:,} answered"),
        ("errors", errors or "none"),
        ("requests/s", f"{summary.requests_per_s:.3f} (offered {summary.offered_per_s:.3f})"),
        ("output tok/s", number(summary.output_tokens_per_s)),
        ("input tok/s", number(summary.input_tokens_per_s)),
        ("prefix hits", f"{summary.hit_rate:.1%} of prompt tokens"),
        ("send lag p99", f"{1e3 * summary.lag_p99_s:.2f} ms"),
    ]
    if summary.verdict:
        share = summary.verdict.goodput
        rows.append(("goodput", f"{summary.goodput_per_s:.3f} requests/s, {share:.2%} of all"))
    if summary.calibration == summary.calibration:
        rows.append(("predicted / actual TTFT", f"{summary.calibration:.2f} (median)"))
    return rows


def latency(summary: Summary) -> RenderableType:
    columns = ("ms", "mean", *(f"p{q:g}" for q in PERCENTILES))
    rows = [
        (
            NAMES[name],
            number(1e3 * metric.mean),
            *(cell(one) for one in metric.at.values()),
        )
        for name in METRICS
        if (metric := summary.metrics[name]).count
    ]
    return table("Latency with 95% confidence intervals", columns, rows)


def cell(one: Interval) -> str:
    """`12.3 (11.9 to 13.0)`, in milliseconds; an end that the sample cannot tell is a dash."""
    ends = f" ({number(1e3 * one.low)} to {number(1e3 * one.high)})"
    return number(1e3 * one.value) + (ends if one.low == one.low or one.high == one.high else "")


def verdict_lines(summary: Summary) -> list[str]:
    verdict = summary.verdict
    if verdict is None:
        return []
    lines = [result.text for result in verdict.clauses]
    if wanted := verdict.availability:
        state = "pass" if wanted.passed else "FAIL"
        lines.append(
            f"{state}  availability >= {wanted.wanted_percent:g}%: {wanted.percent:.3f}%, "
            f"{wanted.budget_used:.0%} of the error budget"
        )
    return lines


def errors_of(simulated: Summary, measured: Mapping[str, float]) -> RenderableType:
    """A simulated run beside the figures of a measured one."""
    ours = headline(simulated)
    rows = [
        (name, number(value, 4), number(ours[name], 4), f"{difference(name, ours[name], value)}")
        for name, value in measured.items()
    ]
    return table("Simulated beside measured", ("", "measured", "simulated", "error"), rows)


def headline(summary: Summary) -> dict[str, float]:
    """The figures by which a simulation is judged."""
    ttft, itl = summary.metrics["ttft_s"], summary.metrics["itl_s"]
    return {
        "output_tokens_per_s": summary.output_tokens_per_s,
        "ttft_p50_s": ttft.at["p50"].value,
        "ttft_p99_s": ttft.at["p99"].value,
        "itl_p50_s": itl.at["p50"].value,
        "hit_rate": summary.hit_rate,
    }


def difference(name: str, ours: float, value: float) -> str:
    """Points for a share, else percent of the measured figure."""
    if name == "hit_rate":
        return f"{100 * (ours - value):+.1f} points"
    return f"{ours / value - 1:+.1%}" if value else "-"
