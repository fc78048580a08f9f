"""Where the processes of one host meet: files without names, handed from parent to child.

So there is no port, path or segment that a killed process could leave behind.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

from penstock.errors import UnsupportedError
from penstock.parallel.ranks import RankGroup, Transport
from penstock.parallel.shared import (
    SharedMemory,
    Words,
    available,
    segment_bytes,
    unnamed_file,
    words_bytes,
)

CONNECT_S = 120.0
"""How long a rank waits for the others to connect, and at most for one of their messages: faults
are found much sooner by those who watch the processes."""
TRANSPORTS = ("auto", "shared_memory", "distributed")


class Meeting:
    """File descriptors that all ranks of a group of `size` hold.

    pulse: Words: 0 = the group is broken; 1 + rank = that rank's heartbeats. segment: of the
    shared memory. store: of torch.distributed.
    """

    def __init__(self, size: int, pulse: int, segment: int, store: int) -> None:
        self.size = size
        self.pulse, self.segment, self.store = pulse, segment, store
        self._open = [pulse, segment, store]

    @staticmethod
    def call(size: int) -> Meeting:
        fds = (words_bytes(1 + size), segment_bytes(size), 0)
        return Meeting(size, *map(unnamed_file, fds))

    @property
    def fds(self) -> tuple[int, int, int]:
        return (self.pulse, self.segment, self.store)

    def close(self) -> None:
        """This process needs no new connection; what is connected stays so. May be called twice."""
        for fd in self._open:
            os.close(fd)
        self._open.clear()

    def pulses(self) -> Words:
        return Words(self.pulse, 1 + self.size)

    def connect(
        self, ranks: RankGroup, device: torch.device, way: str, broken: Callable[[], bool]
    ) -> None:
        """Let the ranks talk. All call it at about the same time. `way` is one of TRANSPORTS.
        Raises EngineError, UnsupportedError."""
        ranks.transport = self._transport(ranks.rank, device, way, broken)

    def _transport(
        self, rank: int, device: torch.device, way: str, broken: Callable[[], bool]
    ) -> Transport:
        shared = device.type == "cpu" and available()
        if way == "shared_memory" and not shared:
            raise UnsupportedError(
                "--tensor-parallel-transport shared_memory needs --device cpu on an x86 processor.",
                cure="Use auto.",
                param="tensor_parallel_transport",
            )
        if shared and way != "distributed":
            return SharedMemory(self.segment, rank, self.size, broken)
        from penstock.parallel.distributed import Distributed

        return Distributed(self.store, rank, self.size, device, CONNECT_S)
