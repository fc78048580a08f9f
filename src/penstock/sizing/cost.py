"""Money: an hour of a fleet, a million tokens, a request inside the SLO."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bill:
    """What a fleet costs at its mean load. USD."""

    per_hour: float
    per_mtok_input: float
    per_mtok_output: float
    per_mtok_blended: float
    per_good_request: float
    """per request inside every clause"""


def bill(
    per_hour: float,
    calls_per_s: float,
    input_tokens: float,
    output_tokens: float,
    prefill_share: float,
    goodput: float,
) -> Bill:
    """calls_per_s: mean over the window; tokens: mean of a call, cached ones included;
    prefill_share: part of the work that is prefill, which is what input tokens pay for; goodput:
    share of requests inside every clause.
    """
    per_call = per_hour / 3600 / calls_per_s
    return Bill(
        per_hour,
        per_call * prefill_share / input_tokens * 1e6,
        per_call * (1 - prefill_share) / output_tokens * 1e6,
        per_call / (input_tokens + output_tokens) * 1e6,
        per_call / goodput if goodput else float("inf"),
    )
