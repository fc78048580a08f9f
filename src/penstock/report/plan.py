"""A sizing answer for the terminal and as plain data."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from penstock.report.tables import number, table
from penstock.sizing.hardware import Device
from penstock.sizing.sizer import Answer, Plan

MERITS = {
    "output_tokens_per_s_per_user": "tokens/s/user",
    "ttlt_p95_s": "TTLT p95 s",
    "mtok_per_usd": "Mtok/USD",
}


def ranking(answer: Answer, top: int) -> RenderableType:
    """The best plans, one a row."""
    columns = (
        "plan", MERITS[answer.merit], "N", "calls/s each", "USD/h", "USD/Mtok", "bound"
    )  # fmt: skip
    rows = [
        (
            plan.setup.name,
            number(plan.merit, 2),
            f"{plan.replicas}+{plan.spares}",
            number(plan.capacity, 2),
            number(plan.scaled.per_hour, 2),
            number(plan.scaled.per_mtok_blended, 3),
            plan.load.bound,
        )
        for plan in answer.plans[:top]
    ]
    title = (
        f"Best of {len(answer.plans)} feasible plans by {answer.merit}; N replicas + spares, costs "
        "with replicas that follow the load"
    )
    made = table(title, columns, rows)
    made.columns[0].no_wrap = True
    return made


def refusals(answer: Answer, top: int) -> RenderableType:
    """Why the nearest others are out."""
    rows = [(refusal.setup.name, refusal.reason) for refusal in answer.refusals[:top]]
    made = table(f"Not feasible: {len(answer.refusals)}, nearest first", ("plan", "why"), rows)
    made.columns[1].justify = "left"
    return made


def details(plan: Plan, needed_note: str = "") -> RenderableType:
    """The winner: memory, load, SLO, replicas, cost."""
    memory, load = plan.memory, plan.load
    giga = [
        f"{name} {value / 1e9:.2f} GB"
        for name, value in (
            ("weights", memory.weights_bytes),
            ("KV cache", memory.kv_bytes),
            ("activations", memory.activations_bytes),
            ("runtime", memory.runtime_bytes),
        )
    ]
    rows = [
        ("memory of a device", f"{', '.join(giga)} of {memory.device_bytes / 1e9:.0f} GB"),
        ("KV cache", f"{memory.kv_tokens:,} tokens"),
        (
            "step at planned load",
            f"{load.step_s * 1e3:.2f} ms, {load.bound}-bound, {load.running:.1f} requests decode, "
            f"{load.utilisation:.0%} full, {load.prefill_share:.0%} of the time for prefill",
        ),
        (
            "replicas",
            f"{plan.replicas} for {plan.needed:.3g} calls/s{needed_note}, "
            f"{plan.spares} more for failures",
        ),
        (
            "scaled with the load",
            f"{plan.scaling.mean_replicas:.2f} on average, {plan.scaling.buffer} of them as "
            f"buffer, {plan.scaling.utilisation:.0%} used",
        ),
        (
            "cost",
            f"{plan.scaled.per_hour:.2f} USD/h scaled, {plan.fixed.per_hour:.2f} fixed",
        ),
        (
            "scaled, per Mtok",
            f"input {plan.scaled.per_mtok_input:.3g}, output {plan.scaled.per_mtok_output:.3g}, "
            f"all {plan.scaled.per_mtok_blended:.3g} USD",
        ),
        ("a request in the SLO", f"{plan.scaled.per_good_request:.2g} USD"),
    ]
    rows += [("SLO, forecast", result.text) for result in plan.verdict.clauses]
    made = table(f"Best: {plan.setup.name}", ("", ""), rows)
    made.columns[1].justify = "left"
    return made


def hardware(devices: list[Device]) -> RenderableType:
    """The table of devices, and below it where each figure is from."""
    dtypes = ("fp32", "bf16", "int8", "fp8")
    columns = ("device", "GB", "GB/s", *dtypes, "ridge", "USD/h")
    rows = []
    for device in devices:
        rates = [device.rates.of(dtype) for dtype in dtypes]
        rows.append(
            (
                device.name,
                number(device.memory_bytes / 1e9, 0),
                number(device.bandwidth / 1e9, 0),
                *(_tera(rate) for rate in rates),
                number(_scaled(device.ridge("bf16"), 1), 0),
                number(_scaled(device.price.on_demand, 1), 2),
            )
        )
    sources = "\n".join(
        f"{device.name}: {device.source}. {_link(device)}Reserved {_usd(device.price.reserved)}, "
        f"spot {_usd(device.price.spot)} USD/h; {device.price.source}, {device.price.date}."
        for device in devices
    )
    note = (
        "Dense peaks in TFLOP/s (int8: TOP/s); ridge: bf16 operations a byte where arithmetic takes"
        " over."
    )
    return Group(table("Hardware", columns, rows), Text(f"{note}\n{sources}"))


def _tera(rate: float | None) -> str:
    return number(_scaled(rate, 1e12), 2 if (rate or 0) < 1e12 else 0)


def _link(device: Device) -> str:
    return f"Link {device.link / 1e9:.0f} GB/s each way. " if device.link else ""


def _usd(value: float | None) -> str:
    return number(_scaled(value, 1), 2)


def _scaled(value: float | None, unit: float) -> float:
    return math.nan if value is None else value / unit


def to_dict(answer: Answer) -> dict[str, Any]:
    """Plain data for JSON, without the samples of outcomes."""
    plans = []
    for plan in answer.plans:
        data = asdict(plan)
        del data["load"]["outcomes"]
        data["setup"]["name"] = plan.setup.name
        plans.append(data)
    return {
        "figure_of_merit": answer.merit,
        "regime": answer.regime,
        "why": answer.why,
        "plans": plans,
        "refusals": [
            {"setup": r.setup.name, "reason": r.reason, "by": None if math.isinf(r.by) else r.by}
            for r in answer.refusals
        ],
    }
