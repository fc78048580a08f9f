"""Which deployment: every feasible (device, precision, TP, PP) sized, judged and ranked.

The order is that of the workload's own figure of merit. When nothing is feasible the answer says
what each one lacks and which clause the nearest one misses by how much.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from penstock.sizing.capacity import Demand, Limits, Load, Replica, demand_of
from penstock.sizing.cost import Bill, bill
from penstock.sizing.demand import (
    Rates,
    Scaling,
    replicas_for,
    scale,
    spares_for,
    spread_out,
    waits,
)
from penstock.sizing.hardware import Device
from penstock.sizing.memory import MemoryPlan, plan_memory
from penstock.sizing.precision import Precision
from penstock.sizing.roofline import Roofline
from penstock.sizing.shape import ModelShape
from penstock.workload.definition import Workload
from penstock.workload.slo import Verdict

BUDGETS = {"gpu": (8192, 2048, 512), "cpu": (256, 64)}
"""Tokens of a step that are tried: large ones serve more, small ones stall running requests
less."""
MAX_SEQS = {"gpu": 256, "cpu": 64}


@dataclass(frozen=True, slots=True)
class Scope:
    """What may be chosen from."""

    devices: Sequence[Device]
    precisions: Sequence[Precision]
    tensor_parallel: Sequence[int] = (1,)
    pipeline_parallel: Sequence[int] = (1,)
    headroom: float = 0.8
    """part of a replica's capacity that is planned with"""
    price: str = "on_demand"
    lacks: Callable[[Setup], str] = lambda setup: ""
    """what the software lacks to run a setup; empty when it can"""


@dataclass(frozen=True, slots=True)
class Setup:
    """One way to run a replica."""

    device: Device
    precision: Precision
    tp: int
    pp: int
    max_tokens: int

    @property
    def devices(self) -> int:
        return self.tp * self.pp

    @property
    def name(self) -> str:
        parts = [f"TP {self.tp}"] if self.tp > 1 else []
        parts += [f"PP {self.pp}"] if self.pp > 1 else []
        return " ".join([f"{self.devices} x {self.device.name}", self.precision.name, *parts])


@dataclass(frozen=True, slots=True)
class Plan:
    """A feasible deployment."""

    setup: Setup
    memory: MemoryPlan
    max_seqs: int
    capacity: float
    """calls/s of one replica inside the SLO"""
    needed: float
    """calls/s at the worst moment"""
    load: Load
    """of one replica at its planned load"""
    verdict: Verdict
    replicas: int
    """for the needed rate, with headroom"""
    spares: int
    """for failures"""
    scaling: Scaling
    fixed: Bill
    """with all replicas all the time"""
    scaled: Bill
    """with replicas that follow the load"""
    merit: float
    """in the unit of the workload's figure of merit"""

    @property
    def total(self) -> int:
        return self.replicas + self.spares


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a way to run cannot be."""

    setup: Setup
    reason: str
    by: float
    """how far from feasible: the figure in multiples of its limit (inf: not comparable)"""


@dataclass(frozen=True, slots=True)
class Answer:
    """All plans, best first, and all refusals, nearest first."""

    merit: str
    regime: str
    """efficiency-bound or capability-bound"""
    why: str
    plans: tuple[Plan, ...]
    refusals: tuple[Refusal, ...]


def size(workload: Workload, shape: ModelShape, rates: Rates, scope: Scope) -> Answer:
    """Judge every setup in scope. Never raises for an infeasible one: it is a refusal."""
    demand = demand_of(workload)
    plans: list[Plan] = []
    refusals: list[Refusal] = []
    too_long = _too_long(workload, shape)
    for device in scope.devices:
        for precision in scope.precisions:
            for tp, pp in _degrees(shape, device, scope):
                setup = Setup(device, precision, tp, pp, 0)
                if lacking := scope.lacks(setup):
                    found: Plan | Refusal = Refusal(setup, lacking, math.inf)
                elif too_long:
                    found = Refusal(setup, *too_long)
                else:
                    found = _best_budget(workload, shape, rates, scope, demand, setup)
                if isinstance(found, Plan):
                    plans.append(found)
                else:
                    refusals.append(found)
    lower_is_better = workload.figure_of_merit == "ttlt_p95_s"
    plans.sort(key=lambda p: (p.merit if lower_is_better else -p.merit, p.scaled.per_hour))
    refusals.sort(key=lambda r: r.by)
    regime, why = _regime(workload, shape, scope)
    return Answer(workload.figure_of_merit, regime, why, tuple(plans), tuple(refusals))


def _too_long(workload: Workload, shape: ModelShape) -> tuple[str, float] | None:
    lengths = workload.lengths
    longest = lengths.input_tokens.quantile(1) + lengths.output_tokens.quantile(1)
    if longest <= shape.max_positions:
        return None
    cause = (
        f"the model's context is {shape.max_positions:,} tokens, the workload's longest prompt "
        f"and output have {longest:,.0f} (lengths.input_tokens.max, output_tokens.max)"
    )
    return cause, longest / shape.max_positions


def _degrees(shape: ModelShape, device: Device, scope: Scope) -> Iterable[tuple[int, int]]:
    for tp in scope.tensor_parallel:
        for pp in scope.pipeline_parallel:
            splits = shape.num_heads % tp == 0 and (
                shape.num_kv_heads % tp == 0 or tp % shape.num_kv_heads == 0
            )
            if splits and tp * pp <= device.per_node and pp <= shape.num_layers:
                yield tp, pp


def _best_budget(
    workload: Workload,
    shape: ModelShape,
    rates: Rates,
    scope: Scope,
    demand: Demand,
    setup: Setup,
) -> Plan | Refusal:
    """The best of the step budgets; the nearest refusal when none will do."""
    device = setup.device
    found = [
        _size_one(
            workload, shape, rates, scope, demand,
            Setup(device, setup.precision, setup.tp, setup.pp, budget),
        )
        for budget in BUDGETS[device.kind]
    ]  # fmt: skip
    plans = [plan for plan in found if isinstance(plan, Plan)]
    if plans:
        return max(plans, key=lambda plan: plan.capacity)
    return min((r for r in found if isinstance(r, Refusal)), key=lambda r: r.by)


def _size_one(
    workload: Workload,
    shape: ModelShape,
    rates: Rates,
    scope: Scope,
    demand: Demand,
    setup: Setup,
) -> Plan | Refusal:
    device, price = setup.device, setup.device.price.of(scope.price)
    try:
        roofline = Roofline(shape, setup.precision, device, setup.tp, setup.pp)
    except ValueError as error:
        return Refusal(setup, f"{error}", math.inf)
    if price is None:
        return Refusal(setup, f"no {scope.price} price is known", math.inf)
    seqs = MAX_SEQS[device.kind]
    memory = plan_memory(shape, setup.precision, device, setup.tp, setup.pp, setup.max_tokens, seqs)
    shortage = _shortage(memory, demand)
    if shortage is not None:
        return Refusal(setup, *shortage)
    replica = Replica(roofline, demand, Limits(setup.max_tokens, seqs, memory.kv_tokens))
    capacity = replica.capacity(workload.slo)
    if not capacity:
        return _missed(setup, replica, workload)
    served, patient = spread_out(workload, rates), waits(workload)
    needed = served.peak
    replicas = replicas_for(needed, capacity, scope.headroom)
    spares = 0 if patient else spares_for(replicas, workload.availability.percent / 100)
    load = replica.at(min(needed / replicas, capacity * scope.headroom))
    verdict = replica.verdict(load, workload.slo)
    start_s = workload.start.budget_s
    scaling = scale(served, capacity, scope.headroom, start_s, replicas, patient)
    hour = price * setup.devices
    bills = [
        bill(hour * count, rates.mean, demand.mean_input, demand.mean_output, load.prefill_share,
             verdict.goodput)
        for count in (replicas + spares, scaling.mean_replicas + spares)
    ]  # fmt: skip
    over = _over_cost(workload, bills[1])
    if over is not None:
        return Refusal(setup, *over)
    return Plan(
        setup, memory, seqs, capacity, needed, load, verdict, replicas, spares, scaling,
        bills[0], bills[1], _merit(workload, load, bills[1]),
    )  # fmt: skip


def _shortage(memory: MemoryPlan, demand: Demand) -> tuple[str, float] | None:
    if not memory.fits:
        room = memory.device_bytes / (memory.device_bytes + memory.missing_bytes)
        lacking = f"{memory.missing_bytes / 1e9:,.1f} GB of memory are missing for the weights"
        return lacking, 1 / room
    if memory.kv_tokens < demand.longest:
        cause = (
            f"the cache holds {memory.kv_tokens:,} tokens, the longest request has "
            f"{demand.longest:,}"
        )
        return cause, demand.longest / memory.kv_tokens
    return None


def _missed(setup: Setup, replica: Replica, workload: Workload) -> Refusal:
    """Which clause fails even at next to no load, and by how much."""
    load = replica.at(1e-6)
    if not load.outcomes:
        return Refusal(setup, "not even one request at a time can be served", math.inf)
    failed = [r for r in replica.verdict(load, workload.slo).clauses if not r.passed]
    worst = max(failed, key=lambda r: r.value_s / r.clause.limit_s)
    by = worst.value_s / worst.clause.limit_s
    cause = f"misses {worst.clause.name} even when idle: {worst.value_s:.3g} s, {by - 1:.0%} over"
    return Refusal(setup, cause, by)


def _over_cost(workload: Workload, price: Bill) -> tuple[str, float] | None:
    cost = workload.cost
    checks = (
        ("input", cost.max_usd_per_mtok_input, price.per_mtok_input),
        ("output", cost.max_usd_per_mtok_output, price.per_mtok_output),
        ("blended", cost.max_usd_per_mtok_blended, price.per_mtok_blended),
    )
    over = [(name, limit, value) for name, limit, value in checks if limit and value > limit]
    if not over:
        return None
    name, limit, value = max(over, key=lambda item: item[2] / item[1])
    cause = (
        f"costs {value:.3g} USD per M {name} tokens, {value / limit - 1:.0%} over the ceiling "
        f"of {limit:g}"
    )
    return cause, value / limit


def _merit(workload: Workload, load: Load, price: Bill) -> float:
    if workload.figure_of_merit == "mtok_per_usd":
        return 1 / price.per_mtok_blended
    if workload.figure_of_merit == "ttlt_p95_s":
        totals = sorted(outcome.e2e_s for outcome in load.outcomes)
        return totals[min(int(0.95 * len(totals)), len(totals) - 1)]
    rates = sorted(1 / o.tpot_s for o in load.outcomes if o.tpot_s)
    return rates[len(rates) // 2] if rates else 0.0


def _regime(workload: Workload, shape: ModelShape, scope: Scope) -> tuple[str, str]:
    """Capability-bound: the model that is good enough needs several devices, so the largest ones
    and their links decide. Efficiency-bound: it fits one, so price per token decides."""
    for device in scope.devices:
        for precision in scope.precisions:
            memory = plan_memory(shape, precision, device, 1, 1, min(BUDGETS[device.kind]), 1)
            if memory.fits:
                why = f"{precision.name} weights fit one {device.name}: many small replicas"
                return "efficiency-bound", why
    count = f"{shape.num_params / 1e9:.3g} billion weights"
    return "capability-bound", f"{count} fit no single device in scope: parallel ones first"
