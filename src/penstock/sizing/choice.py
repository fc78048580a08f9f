"""Which model: the cheapest that passes the workload's quality gates, and what that makes of the
deployment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstock.errors import ConfigError
from penstock.sizing.shape import ModelShape
from penstock.workload.definition import QualityGate


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model with its scores by evaluation, 0 to 1."""

    shape: ModelShape
    scores: Mapping[str, float]


def smallest_passing(
    candidates: Sequence[Candidate], gates: Sequence[QualityGate]
) -> tuple[Candidate, list[str]]:
    """The one with the fewest active weights that passes every gate, and why smaller ones do not.

    A score that is missing fails. Raises ConfigError when none passes, naming the nearest.
    """
    reasons: list[str] = []
    for candidate in sorted(candidates, key=lambda c: c.shape.active_params):
        failed = [
            f"{gate.eval} {candidate.scores.get(gate.eval, 0.0):.3g} < {gate.min_score:g}"
            for gate in gates
            if candidate.scores.get(gate.eval, 0.0) < gate.min_score
        ]
        if not failed:
            return candidate, reasons
        reasons.append(f"{candidate.shape.name}: {', '.join(failed)}")
    raise ConfigError(
        f"No model passes the quality gates: {'; '.join(reasons)}.",
        cure="Lower min_score in [[quality]], or offer a better model.",
        param="quality",
    )
