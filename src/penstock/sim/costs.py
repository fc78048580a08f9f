"""From a plan to seconds: by roofline, or by a model fitted to measured steps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Protocol

from penstock.core.step_time import TERMS, StepTime, Work, fit
from penstock.errors import ConfigError
from penstock.sizing.roofline import Roofline


class Costs(Protocol):
    def seconds(self, work: Work) -> float:
        """Of one step; it must be positive."""
        ...


class RooflineCosts:
    """What the hardware table says."""

    def __init__(self, roofline: Roofline) -> None:
        self._roofline = roofline

    def seconds(self, work: Work) -> float:
        return self._roofline.step(
            work.prefill,
            work.attended / work.prefill if work.prefill else 0.0,
            work.rows,
            work.context / work.rows if work.rows else 0.0,
        ).seconds


class FittedCosts:
    """What steps of this machine took; no step takes less than the quickest one measured."""

    def __init__(self, model: StepTime, least_s: float) -> None:
        self.model, self.least_s = model, least_s

    def seconds(self, work: Work) -> float:
        return max(self.least_s, self.model.seconds(work))

    def to_dict(self) -> dict[str, Any]:
        weights = dict(zip(TERMS, self.model.weights, strict=True))
        return {"step_time_s": weights, "least_s": self.least_s}


def decode_run(costs: Costs, rows: int, context: int, count: int) -> list[float]:
    """Seconds of `count` steps in a row of the same requests, which each add a key a step: linear
    between the first and the last, as the cost of keys is."""
    first = costs.seconds(Work(rows, context))
    if count == 1:
        return [first]
    last = costs.seconds(Work(rows, context + rows * (count - 1)))
    slope = (last - first) / (count - 1)
    return [first + slope * i for i in range(count)]


def fitted(steps: Sequence[tuple[Work, float]]) -> FittedCosts:
    """Costs by measured steps. Raises ConfigError when there are too few of them."""
    good = [
        (work, seconds) for work, seconds in steps if seconds > 0 and (work.rows or work.prefill)
    ]
    if len(good) < len(TERMS):
        raise ConfigError(
            f"{len(good)} measured steps are too few to fit what a step costs.",
            cure="Log a longer run.",
            param="calibrate",
        )
    return FittedCosts(fit(good), min(seconds for _, seconds in good))


def read_costs(text: str, name: str) -> FittedCosts:
    """Costs from what `FittedCosts.to_dict` wrote. Raises ConfigError naming file and field."""
    try:
        whole = json.loads(text)
        weights = [float(whole["step_time_s"][term]) for term in TERMS]
        least_s = float(whole["least_s"])
    except (json.JSONDecodeError, TypeError, ValueError) as error:
        raise _wrong(name, f"no fitted costs: {error}") from None
    except KeyError as error:
        raise _wrong(name, f"{error.args[0]} is missing") from None
    if min(weights) < 0 or least_s <= 0:
        raise _wrong(name, "a time is negative, or least_s is not positive")
    return FittedCosts(StepTime(tuple(weights)), least_s)


def _wrong(name: str, cause: str) -> ConfigError:
    cure = "Give a folder of logs, or a file that --save-costs wrote."
    return ConfigError(f"{name}: {cause}.", cure=cure, param="calibrate")
