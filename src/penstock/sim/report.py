"""A simulated fleet as a run, so that it is judged and shown as a measured one."""

from __future__ import annotations

from typing import Any

from penstock.report.run import Run
from penstock.sim.fleet import Fleet
from penstock.workload.definition import Workload


def as_run(
    fleet: Fleet,
    workload: Workload,
    begin_s: float,
    end_s: float,
    load: dict[str, Any],
    about: dict[str, Any],
) -> Run:
    """begin_s, end_s: of the measured span."""
    records = sorted(fleet.records, key=lambda record: record.due_s)
    return Run(
        "simulated", records, begin_s, end_s, workload.slo, workload.availability, load, about,
        gaps=fleet.gaps,
    )  # fmt: skip


def usage_rows(fleet: Fleet, hour_usd: float | None) -> list[tuple[str, str]]:
    """What was paid for and how much of it was used. hour_usd: price of a replica, if known."""
    usage = fleet.usage
    hours = usage.paid_s / 3600
    rows = [
        ("replicas", f"{usage.most} at most, {usage.starts} started, "
                     f"{usage.reversals} reversals of scaling"),
        ("paid for", f"{hours:.2f} replica hours"),
        ("utilisation", f"{usage.utilisation:.1%} of what was paid for was needed, "
                        f"{usage.busy_s / usage.paid_s if usage.paid_s else 0:.1%} ran steps"),
        ("steps", f"{usage.steps:,}"),
    ]  # fmt: skip
    if hour_usd is not None:
        tokens = sum(r.input_tokens + r.output_tokens for r in fleet.records if r.answered)
        cost = hours * hour_usd
        each = f", {cost / tokens * 1e6:.3g} USD per M tokens of both" if tokens else ""
        rows.append(("cost", f"{cost:.2f} USD{each}"))
    return rows
