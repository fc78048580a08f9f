"""What the scheduler must keep to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What a step may hold. With max_num_batched_tokens < max_num_seqs the last in queue order
    would wait while others decode; `config` refuses that for servers."""

    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    depth: int = 1
    stages: int = 1
    """of the executor's pipeline. With several, the first stage has no way to know a token that
    the last one samples: a request then has at most one output that is not applied, and what
    decodes is spread over `depth` plans, so that every stage has one to work on."""
    max_mixed_prefill_tokens: int | None = None
    """prompt tokens in a step that others wait for to decode; None: what the budget leaves.
    A prompt alone may have long steps, which cost less in total; beside streams they stall."""
    max_adapters: int = 0
    """different adapters that running requests may have at a time"""

    @property
    def background_tokens(self) -> int:
        """Most tokens of background work in one step, so that no step is long for its sake."""
        return max(1, self.max_num_batched_tokens // 4)
