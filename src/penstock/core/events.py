"""What happened, as plain records that the scheduler gathers and the engine publishes once a step.

`observe` turns them into metrics and logs, mailboxes into streams, the simulator into reports.
All times are seconds on the scheduler's clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from penstock.core.plan import StepPlan, StepResult, TokenLogprobs
from penstock.core.request import FinishReason, HoldReason


class WaitReason(StrEnum):
    """Which limit keeps the first in the queue, and with it all behind it, from a slot."""

    SLOTS = "slots"
    """max_num_seqs requests run"""
    TOKENS = "tokens"
    """the step's token budget is spent"""
    BLOCKS = "blocks"
    """the KV cache has too few free blocks"""
    PREEMPTION = "preemption"
    """somebody was preempted in this step: nobody is let in"""
    BACKGROUND = "background"
    """it is background work, and others wait for a first token or read their prompts"""
    RESULT = "result"
    """it was preempted, and a step that still computes it is under way"""


@dataclass(slots=True)
class Queued:
    id: str
    at: float
    num_prompt: int
    arrived: float | None = None
    """when the server received it, on the same clock; None: not told"""
    predicted_ttft_s: float | None = None
    """seconds from then to the first token, as predicted (policy `slo`)"""


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
    route: dict[str, object] | None = None
    """of several engines: the receipt of the choice, filled in by whoever chose"""


@dataclass(slots=True)
class Released:
    """A held request is back in the queue."""

    id: str
    at: float


@dataclass(slots=True)
class Blocked:
    """From now on the queue stands for this reason; said when it changes, not every step."""

    at: float
    reason: WaitReason | None
    """None: nobody waits for more than the step under way"""
    head: str = ""
    """id of the first in the queue"""
    behind: str = ""
    """id of the request that runs longest"""
    id: str = ""
    """of no single request"""


@dataclass(slots=True)
class Chunk:
    """A part of the known tokens was computed, as a prefill or again after a preemption."""

    id: str
    at: float
    step: int
    start: int
    count: int


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


def embedded(ids: Iterable[str], plan: StepPlan, result: StepResult) -> list[Embedded]:
    """ids: of the plan's rows."""
    if not result.embeddings:
        return []
    ending = [row for row, last in zip(ids, plan.samples, strict=True) if last]
    return [Embedded(ending[j], vector) for j, vector in result.embeddings.items()]


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
    | Released
    | Blocked
    | Scheduled
    | Chunk
    | Preempted
    | TokensOut
    | PromptLogprobs
    | Embedded
    | Finished
    | CacheChanged
)


def chunk_events(
    request_id: str, plan: StepPlan, row: int, result: StepResult, now: float
) -> list[Event]:
    """What a row that computed known tokens has to tell."""
    start, found = plan.starts[row], result.prompt_logprobs.get(row)
    chunk = Chunk(request_id, now, plan.step, start, plan.counts[row])
    return [chunk] if found is None else [PromptLogprobs(request_id, start + 1, found), chunk]


@dataclass(slots=True)
class Counters:
    """Totals since start."""

    prefix_queries: int = 0
    """tokens looked up in the prefix cache"""
    prefix_hits: int = 0
    """tokens found there"""
    preemptions: int = 0
