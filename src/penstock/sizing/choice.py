"""Which model: the smallest that passes the workload's quality gates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.errors import ConfigError
from penstock.sizing.shape import ModelShape
from penstock.workload import text
from penstock.workload.definition import QualityGate
from penstock.workload.fields import Reader, spec


@dataclass(frozen=True, slots=True)
class Score:
    """What a model reached in one evaluation."""

    eval: str = spec("name of the evaluation")
    score: float = spec("reached", minimum=0, maximum=1)


@dataclass(frozen=True, slots=True)
class Scored:
    """A model with its scores."""

    config: str = spec("its folder or config.json, from this file's folder")
    scores: tuple[Score, ...] = spec("by evaluation")


@dataclass(frozen=True, slots=True)
class _File:
    model: tuple[Scored, ...] = spec("models to choose from")


def read_scored(content: str, name: str) -> tuple[Scored, ...]:
    """The [[model]] tables of a TOML or JSON text. Raises ConfigError naming what is wrong."""
    tables, lines = text.parse(content, name)
    reader = Reader(lines)
    made = reader.read(_File, tables)
    if reader.problems:
        told = "\n".join(problem.text(name) for problem in reader.problems)
        raise ConfigError(told, param=reader.problems[0].field)
    models: tuple[Scored, ...] = made.model
    return models


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model's sizes and scores."""

    shape: ModelShape
    scored: Scored

    def score(self, eval: str) -> float:
        """0 where it was not evaluated: what is not known does not pass."""
        return next((s.score for s in self.scored.scores if s.eval == eval), 0.0)


def smallest_passing(
    candidates: Sequence[Candidate], gates: Sequence[QualityGate]
) -> tuple[Candidate, list[str]]:
    """The one with the fewest active weights that passes every gate, and why smaller ones do not.

    Raises ConfigError when none passes.
    """
    reasons: list[str] = []
    for candidate in sorted(candidates, key=lambda c: c.shape.active_params):
        failed = [
            f"{gate.eval} {candidate.score(gate.eval):.3g} < {gate.min_score:g}"
            for gate in gates
            if candidate.score(gate.eval) < gate.min_score
        ]
        if not failed:
            return candidate, reasons
        reasons.append(f"{candidate.scored.config}: {', '.join(failed)}")
    raise ConfigError(
        f"No model passes the quality gates: {'; '.join(reasons)}.",
        cure="Lower min_score in [[quality]], or offer a better model.",
        param="quality",
    )
