"""How the world above talks to an engine: submit, read a stream of deltas, abort, ask.

In process for `LLM` and tests, another process for serving; nobody above can tell.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from penstock.core.events import Event
from penstock.core.plan import TokenLogprobs
from penstock.core.request import FinishReason, Submission


@dataclass(slots=True)
class Delta:
    """What is new for one submission since its reader last looked (merged when it is slow).

    `tokens` and `logprobs` (when asked for) are parallel. Exactly one delta, the last, has a
    `finish`. `error` is a `PenstockError.to_dict` when finish is ERROR.
    """

    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] | None = None
    prompt_logprobs: list[TokenLogprobs] | None = None
    """of positions 1 .. n-1 (position 0 has none); whole, with the first delta that has tokens"""
    embedding: list[float] | None = None
    """the pooled prompt, when asked for"""
    finish: FinishReason | None = None
    stop_id: int | None = None
    cached_tokens: int = 0
    predicted_ttft_s: float | None = None
    """seconds from arrival to the first token, as predicted at admission (policy `slo`)"""
    error: dict[str, Any] | None = None


@dataclass(slots=True)
class AdapterRoom:
    """What adapters a model takes."""

    slots: int
    """different ones at a time"""
    max_rank: int
    layers: int
    matrices: dict[str, tuple[int, int]]
    """of a layer: name -> (outputs, inputs)"""


@dataclass(slots=True)
class ModelInfo:
    """What the engine settled at start; the rest of the system asks nobody else."""

    vocab_size: int
    max_model_len: int
    eos_ids: tuple[int, ...]
    block_size: int
    num_blocks: int
    max_num_seqs: int
    max_num_batched_tokens: int
    dtype: str
    device: str
    architecture: str
    cache_key: str = ""
    """what block hashes begin with (`core.prefix.root`)"""
    kv_cache_bytes: int = 0
    hidden_size: int = 0
    shorter_embeddings: tuple[int, ...] = ()
    """sizes that the model was trained to be cut to (Matryoshka); (0,): any"""
    adapters: AdapterRoom | None = None
    """None: no adapters can be used"""
    notes: list[str] = field(default_factory=list)
    """decisions and their reasons, for the start-up log"""
    stages_s: dict[str, float] = field(default_factory=dict)
    """seconds of each start-up stage"""
    kernels: str = ""
    """what computes: backend and instruction set"""
    threads: int = 0
    """of the arithmetic in one process; 0: not told"""


@dataclass(slots=True)
class EngineStats:
    """A snapshot, published with every step and every second when idle."""

    at: float
    running: int = 0
    waiting: int = 0
    held: int = 0
    blocks_total: int = 0
    blocks_free: int = 0
    """neither referenced nor cached"""
    blocks_cached: int = 0
    """not referenced, still readable by a prefix hit"""
    step: int = 0
    step_s: float = 0.0
    """wall time of the last step; 0 when idle"""
    device_s: float = 0.0
    """of the last step, as the four below: inside the model and the sampler, on rank 0"""
    schedule_s: float = 0.0
    """deciding and taking up what came out"""
    prepare_s: float = 0.0
    """the plan to tensors"""
    forward_s: float = 0.0
    """the model, logits included"""
    sample_s: float = 0.0
    publish_s: float = 0.0
    """handing on the events of the step before"""
    host_share: float | None = None
    """of the last step: 1 - (time in our CPU kernels / time since the step before it ended), all
    Python included; None where the kernels do not compute the model"""
    bytes_moved: float = 0.0
    """what the last step could not do without (`sizing.floor`), over all ranks"""
    operations: float = 0.0
    floor_s: float = 0.0
    """least seconds for that on this hardware; 0 where it is not known"""
    bound: str = ""
    """memory, compute or host: what takes the most of the last step; empty as above"""
    prefill_tokens: int = 0
    """of the last step"""
    decode_tokens: int = 0
    prefill_rows: int = 0
    """requests that computed a chunk in the last step; all others of it decoded one token"""
    prefix_queries: int = 0
    """tokens looked up in the prefix cache since start"""
    prefix_hits: int = 0
    preemptions: int = 0
    """since start"""
    leaked_blocks: int = 0
    """imbalance of the books found when idle; always 0"""
    engine: int = 0
    """which of the engines behind one client"""
    restarts: int = 0
    """how often its process had to be replaced"""


EventSink = Any
"""callable(list[Event], EngineStats): told of every step, for metrics and logs"""


class EngineClient(Protocol):
    """All methods are called from one event loop."""

    async def start(self) -> ModelInfo:
        """Load the model and be ready. Raises ConfigError, CheckpointError …"""
        ...

    def submit(self, submissions: list[Submission]) -> Sequence[AsyncIterator[Delta]]:
        """One iterator a submission. Closing an iterator early (or `abort`) aborts its request.

        A refused submission's iterator raises the typed error (ContextLengthError …) at its first
        item. When the engine dies, iterators raise EngineDeadError.
        """
        ...

    def abort(self, ids: list[str], reason: FinishReason = FinishReason.ABORT) -> None:
        """Stop work on these; their blocks are free within one step. Unknown ids are ignored."""
        ...

    def subscribe(self, sink: EventSink) -> None:
        """`sink(events: list[Event], stats: EngineStats)` is called for every step of every
        engine; `stats.engine` tells which."""
        ...

    def stats(self) -> EngineStats:
        """The latest snapshot; of several engines together."""
        ...

    def check_health(self, stuck_after_s: float) -> list[str]:
        """Raise EngineDeadError or EngineStuckError (naming the engine, the phase and the age of
        the oldest work that saw no progress) when requests are not served now; else return what
        is wrong in spite of that, a sentence each."""
        ...

    async def close(self) -> None: ...


__all__ = ["Delta", "EngineClient", "EngineStats", "Event", "ModelInfo"]
