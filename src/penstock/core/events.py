"""What happened, as plain records that the scheduler gathers and the engine publishes once a step.

`observe` turns them into metrics and logs, mailboxes into streams, the simulator into reports.
All times are seconds on the scheduler's clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.core.plan import TokenLogprobs
from penstock.core.request import FinishReason, HoldReason


@dataclass(slots=True)
class Queued:
    id: str
    at: float
    num_prompt: int
    arrived: float | None = None
    """when the server received it, on the same clock; None: not told"""


@dataclass(slots=True)
class Held:
    id: str
    at: float
    reason: HoldReason
    behind: str
    """id of the request that it waits for; empty: of no particular one"""


@dataclass(slots=True)
class Scheduled:
    """The request took a slot: first admission, or back after a preemption."""

    id: str
    at: float
    step: int
    cached_tokens: int
    """tokens read from the prefix cache this time"""
    resumed: bool


@dataclass(slots=True)
class Preempted:
    id: str
    at: float
    step: int
    lost_tokens: int
    """computed tokens whose KV was given up"""
    by: str
    """id of the request that needed the blocks"""


@dataclass(slots=True)
class TokensOut:
    id: str
    at: float
    step: int
    tokens: list[int]
    logprobs: list[TokenLogprobs] | None = None


@dataclass(slots=True)
class PromptLogprobs:
    """Logprobs of prompt positions `first` …; position 0 has none."""

    id: str
    first: int
    logprobs: list[TokenLogprobs]


@dataclass(slots=True)
class Embedded:
    """The prompt's hidden states, pooled to one vector [hidden_size]."""

    id: str
    vector: list[float]


@dataclass(slots=True)
class Finished:
    id: str
    at: float
    reason: FinishReason
    num_prompt: int
    num_output: int
    cached_tokens: int
    preemptions: int
    stop_id: int | None = None
    """the stop id that ended it; it is the last of the output tokens"""
    error: dict[str, object] | None = None
    """`PenstockError.to_dict` when the reason is `error`"""


@dataclass(slots=True)
class CacheChanged:
    """Blocks, by hash, that the prefix cache holds or lost since the last step, for routers."""

    stored: list[bytes]
    removed: list[bytes]
    id: str = ""
    """of no request"""


Event = (
    Queued
    | Held
    | Scheduled
    | Preempted
    | TokensOut
    | PromptLogprobs
    | Embedded
    | Finished
    | CacheChanged
)


@dataclass(slots=True)
class Counters:
    """Totals since start."""

    prefix_queries: int = 0
    """tokens looked up in the prefix cache"""
    prefix_hits: int = 0
    """tokens found there"""
    preemptions: int = 0
