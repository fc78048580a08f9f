"""Queue orders: who goes first, and so who is preempted last.

A policy gives each request a fixed key; smaller keys go first. A key that never changes keeps the
queue a heap and makes the order replayable.
"""

from __future__ import annotations

from collections.abc import Callable

from penstock.core.request import Submission
from penstock.errors import ConfigError

Policy = Callable[[Submission, int], tuple[float, ...]]
"""(submission, serial number of its arrival) -> key"""


def fcfs(submission: Submission, serial: int) -> tuple[float, ...]:
    """First come, first served."""
    return (serial,)


def priority(ageing_s: float) -> Policy:
    """Lower priority numbers first; waiting `ageing_s` seconds is worth one step of priority.

    At time t a request's standing is priority - (t - arrival) / ageing_s. The term in t is common
    to all, so the order of two requests never changes and the key needs no clock. A request can be
    overtaken only by those that arrive within ageing_s * (difference of priorities) after it,
    which bounds starvation.
    """
    if ageing_s <= 0:
        raise ConfigError(
            f"The ageing time of the priority policy is {ageing_s} s.",
            cure="Give a positive number of seconds.",
        )

    def key(submission: Submission, serial: int) -> tuple[float, ...]:
        return (submission.priority + submission.arrival_s / ageing_s, serial)

    return key


def background_last(policy: Policy) -> Policy:
    """Background work behind everything else, and in its own order within."""

    def key(submission: Submission, serial: int) -> tuple[float, ...]:
        return (float(submission.background), *policy(submission, serial))

    return key


def make_policy(name: str, ageing_s: float) -> Policy:
    if name == "fcfs":
        return background_last(fcfs)
    if name == "priority":
        return background_last(priority(ageing_s))
    raise ConfigError(f"No scheduling policy is called {name!r}.", cure="Choose fcfs or priority.")
