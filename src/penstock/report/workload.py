"""What a workload file means, drawn: rates over the window and lengths, as defined and as made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.text import Text

from penstock.report import svg
from penstock.report.stats import percentile
from penstock.report.tables import number, table
from penstock.workload.arrivals import summary
from penstock.workload.definition import Workload
from penstock.workload.lengths import Distribution
from penstock.workload.sessions import TimedRequest, ideal_reuse

BARS = " ▁▂▃▄▅▆▇█"
SPARK_WIDTH = 72


@dataclass(frozen=True, slots=True)
class Picture:
    """A workload, its curve of rates (sessions/s a rate window), and a sample of its requests."""

    workload: Workload
    rates: Sequence[float]
    requests: Sequence[TimedRequest]
    """whole sessions, so that prefix reuse is that of the whole"""

    def facts(self) -> list[tuple[str, str]]:
        workload, (mean, p95, peak) = self.workload, summary(list(self.rates))
        calls = len(self.requests) / len({request.session for request in self.requests})
        made = ideal_reuse(iter(self.requests))
        cost = workload.cost
        ceilings = [
            f"{value:g} USD per M {name} tokens"
            for name, value in (
                ("input", cost.max_usd_per_mtok_input),
                ("output", cost.max_usd_per_mtok_output),
                ("blended", cost.max_usd_per_mtok_blended),
            )
            if value is not None
        ]
        slo = [clause.name for clause in workload.slo] or ["none"]
        return [
            ("workload", f"{workload.name} {workload.version}, {workload.owner}"),
            ("archetype", f"{workload.archetype}, judged by {workload.figure_of_merit}"),
            ("sessions/s", f"mean {mean:.3g}, p95 {p95:.3g}, peak {peak:.3g}"),
            ("peak / mean", f"{peak / mean:.3g}"),
            ("calls a session", f"{workload.calls_per_session:.3g} defined, {calls:.3g} made"),
            ("prefix reuse", f"{workload.prefix.reuse_ideal:.3f} defined, {made:.3f} made"),
            ("SLO", "; ".join(slo)),
            ("availability", f"{workload.availability.percent:g}%"),
            ("cost", "; ".join(ceilings)),
        ]

    def lengths(self) -> list[tuple[str, Distribution, list[float]]]:
        lengths = self.workload.lengths
        return [
            ("input tokens", lengths.input_tokens, [float(r.input_tokens) for r in self.requests]),
            (
                "output tokens",
                lengths.output_tokens,
                [float(r.output_tokens) for r in self.requests],
            ),
        ]


def terminal(picture: Picture) -> RenderableType:
    """For the terminal: facts, a line of bars for the rates, quantiles defined and made."""
    facts = table("Workload", ("", ""), picture.facts())
    facts.columns[1].justify = "left"
    rows = []
    for name, defined, made in picture.lengths():
        for share in (0.5, 0.95, 0.99):
            made_at = number(percentile(made, 100 * share), 0)
            rows.append((f"{name} p{share * 100:g}", number(defined.quantile(share), 0), made_at))
    lengths = table(f"Lengths of {len(picture.requests):,} requests", ("", "defined", "made"), rows)
    peak = max(picture.rates)
    window = picture.workload.window.duration_s
    caption = f"Sessions/s over {window / 3600:.4g} h; the tallest bar is {peak:.3g}/s"
    return Group(facts, Text(f"\n{caption}\n{spark(picture.rates)}\n"), lengths)


def spark(values: Sequence[float], width: int = SPARK_WIDTH) -> str:
    """One line of bars; each shows the highest of the values that it stands for."""
    step = max(1.0, len(values) / width)
    groups = [
        values[int(i * step) : max(int((i + 1) * step), int(i * step) + 1)]
        for i in range(min(width, len(values)))
    ]
    top = max(values) or 1.0
    return "".join(BARS[round(max(group) / top * (len(BARS) - 1))] for group in groups)


def html(picture: Picture) -> str:
    """One self-contained page."""
    step = picture.workload.arrivals.rate_window_s / 3600
    curve = [(i * step, rate) for i, rate in enumerate(picture.rates)]
    parts = [
        svg.rows("Definition", picture.facts()),
        svg.lines("Arrivals", "hours from the window's start", "sessions/s", [("rate", curve)]),
    ]
    for name, defined, made in picture.lengths():
        parts.append(svg.histogram(name.capitalize(), f"{name} (logarithmic)", made))
        quantiles = [
            (f"p{share * 100:g}", f"{defined.quantile(share):,.0f} defined, "
             f"{percentile(made, 100 * share):,.0f} made")
            for share in (0.05, 0.5, 0.95, 0.99)
        ]  # fmt: skip
        parts.append(svg.rows(f"{name.capitalize()} at", quantiles))
    return svg.page(f"Workload {picture.workload.name}", parts)
