"""What rank 0 and the workers say to each other: msgpack frames of plain data.

Down: Task, Room, then a StepPlan a frame; STOP ends. Up: Word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from penstock.config import Config
from penstock.errors import from_dict
from penstock.parallel.meeting import Seat

STOP = b""
encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.decode


@dataclass(frozen=True, slots=True)
class Task:
    """The first frame: what a worker is to do."""

    config: Config
    index: int
    """of the engine among --data-parallel-size"""
    seat: Seat


@dataclass(frozen=True, slots=True)
class Room:
    """The second frame, once all weights are there: what rank 0 decided."""

    num_blocks: int
    block_size: int
    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int


@dataclass(frozen=True, slots=True)
class Word:
    """What a worker says: that it has loaded its weights, that it is ready, or that it failed."""

    kind: str
    weight_bytes: int = 0
    token_bytes: int = 0
    """of the KV of one token"""
    free_bytes: int = 0
    error: dict[str, Any] | None = None

    def checked(self) -> Word:
        """This word; raises the typed error if it is one."""
        if self.error is not None:
            raise from_dict(self.error)
        return self
