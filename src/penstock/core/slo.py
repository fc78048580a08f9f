"""What each class of request is promised, and the queue's order by it.

Least slack first: slack at time t is deadline - t - (time that the request still needs). The term in
t is common to all, so that the order of two requests never changes and the key needs no clock. The
deadline of `batch` is far away: it bounds how long newer work may go first, so nothing starves.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.errors import ConfigError

CLASSES = ("interactive", "agent", "batch")


@dataclass(frozen=True, slots=True)
class Promise:
    """Of one class, in seconds."""

    ttft_s: float
    itl_s: float


@dataclass(frozen=True, slots=True)
class Promises:
    """Raises ConfigError when a time is not positive."""

    interactive: Promise = Promise(1.0, 0.2)
    agent: Promise = Promise(5.0, 0.5)
    batch: Promise = Promise(600.0, 60.0)
    default: str = "interactive"
    """class of requests that name none"""

    def __post_init__(self) -> None:
        for name in CLASSES:
            promise: Promise = getattr(self, name)
            if min(promise.ttft_s, promise.itl_s) <= 0:
                cause = f"The times promised to {name} requests must be positive."
                raise ConfigError(cause, cure="Give positive seconds.", param=f"slo_{name}_ttft_s")

    def of(self, name: str) -> Promise:
        promise: Promise = getattr(self, name or self.default)
        return promise

    def is_batch(self, name: str) -> bool:
        """Whether it fills idle capacity and steps aside."""
        return (name or self.default) == "batch"
