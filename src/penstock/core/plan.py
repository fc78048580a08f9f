"""The only things that cross between deciding and doing: `StepPlan` down, `StepResult` up.

Plain lists of numbers, one entry a row, so that a plan is cheap to build, to broadcast to ranks,
to send to another process and to log. Plans are incremental: ids and block tables travel once,
when a request enters; afterwards only what is new.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from penstock.core.request import Adapter, Sampling

UNKNOWN = -1
"""In `StepPlan.tokens`: the id is the one that the slot's previous plan samples."""


@dataclass(frozen=True, slots=True)
class KVGroup:
    """Layers that share one block table. Declared by the model.

    window: 0 = full attention; w > 0 = a query at position p sees keys p-w+1 .. p.
    layers: indices of the model's layers in this group.
    """

    layers: tuple[int, ...]
    window: int = 0


@dataclass(slots=True)
class Entry:
    """A request that takes a slot: new, or back after a preemption."""

    slot: int
    id: str
    tokens: list[int]
    """all known ids, prompt first"""
    num_prompt: int
    sampling: Sampling
    adapter: int = -1
    """slot of its adapter; -1: none"""


@dataclass(slots=True)
class AdapterLoad:
    """An adapter takes a slot of the model, from this step on."""

    slot: int
    adapter: Adapter


@dataclass(slots=True)
class BlockDelta:
    """Blocks `ids` take the places `first`, `first + 1` … in the slot's table of one KV group."""

    slot: int
    group: int
    first: int
    ids: list[int]


@dataclass(slots=True)
class StepPlan:
    """What one step computes. Row i is slots[i]: positions starts[i] .. starts[i] + counts[i] - 1.

    Executors run plans in the order in which they are submitted; every KV write of plan k is
    visible to plan k+1. Blocks and slots may therefore change owner between two plans.
    """

    step: int
    entries: list[Entry] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    """id of the row's last input token, or UNKNOWN when plan step-1 samples it"""
    samples: list[bool] = field(default_factory=list)
    """whether the row wants an output token"""
    blocks: list[BlockDelta] = field(default_factory=list)
    adapters: list[AdapterLoad] = field(default_factory=list)
    """before anything is computed"""

    @property
    def num_tokens(self) -> int:
        return sum(self.counts)


@dataclass(slots=True)
class TokenLogprobs:
    """Logprobs at one position: the chosen token and the best alternatives, best first."""

    token: int
    logprob: float
    rank: int
    """1 = the likeliest"""
    top_ids: list[int]
    top_logprobs: list[float]


@dataclass(slots=True)
class StepResult:
    """What a plan did: `tokens[j]` are the accepted ids of the j-th row that wanted output."""

    step: int
    tokens: list[list[int]]
    logprobs: dict[int, list[TokenLogprobs]] = field(default_factory=dict)
    """by j, for rows that asked: one a token"""
    prompt_logprobs: dict[int, list[TokenLogprobs]] = field(default_factory=dict)
    """by row index of the plan: logprobs of the prompt tokens after each computed position"""
    embeddings: dict[int, list[float]] = field(default_factory=dict)
    """by j, for rows that asked for a pooled prompt, at their first token"""
    device_s: float = 0.0
    """seconds inside the model and the sampler"""
    error: dict[str, object] | None = None
    """`PenstockError.to_dict` of a step that failed as a whole; the rows got nothing"""


class Executor(Protocol):
    """Does plans: the model runner, a group of workers, a test's script, the simulator."""

    def submit(self, plan: StepPlan) -> None:
        """Take a plan; may return before it has run."""
        ...

    def collect(self) -> StepResult:
        """Wait for the oldest submitted plan and return what it did."""
        ...
