"""Requests, costs and engines for tests of the simulator; no machine is asked for its speed."""

from __future__ import annotations

import random

from penstock.core.limits import Limits
from penstock.core.step_time import StepTime
from penstock.sim.costs import FittedCosts
from penstock.sim.engine import EngineSpec
from penstock.workload.prefixes import Segment, name_of
from penstock.workload.sessions import TimedRequest

COSTS = FittedCosts(StepTime((0.004, 0.0005, 2e-7, 0.001, 0.00005, 1e-8)), 1e-4)

SLOW = FittedCosts(StepTime((0.04, 0.0, 0.0, 0.0, 0.00005, 0.0)), 1e-4)
"""A step takes 40 ms whatever it does: a replica serves as many as it has slots."""


def engine(
    depth: int = 2,
    seqs: int = 8,
    tokens: int = 64,
    blocks: int = 400,
    costs: FittedCosts = COSTS,
) -> EngineSpec:
    return EngineSpec(Limits(seqs, tokens, 2048, depth), blocks, costs)


def request(
    number: int,
    at_s: float,
    input_tokens: int = 50,
    output_tokens: int = 20,
    shared: int = 0,
    slo_class: str = "interactive",
) -> TimedRequest:
    prompt = (Segment(7, shared),) if shared else ()
    own = Segment(name_of(number, 0), input_tokens - shared)
    return TimedRequest(
        number, at_s, number, 0, (), 0.0, (*prompt, own), input_tokens, output_tokens,
        name_of(number, 1), slo_class, "here",
    )  # fmt: skip


def mixed(count: int, rate: float, seed: int = 0) -> list[TimedRequest]:
    """Poisson arrivals of mixed lengths, some with a common prefix."""
    rng = random.Random(seed)
    at, made = 0.0, []
    for number in range(count):
        at += rng.expovariate(rate)
        shared = rng.choice([0, 32, 40])
        made.append(
            request(number, at, shared + rng.randrange(1, 200), rng.randrange(1, 60), shared)
        )
    return made
