"""Where the processes of one host meet: files without names, handed from parent to child.

So there is no port, path or segment that a killed process could leave behind.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch

from penstock.errors import UnsupportedError
from penstock.parallel.ranks import RankGroup, Transport
from penstock.parallel.shared import (
    CAPACITY,
    SharedMemory,
    Words,
    available,
    segment_bytes,
    unnamed_file,
    words_bytes,
)
from penstock.parallel.stages import Stage

CONNECT_S = 120.0
"""How long a rank waits for the others to connect, and at most for one of their messages: faults
are found much sooner by those who watch the processes."""
LINK_CAPACITY = 16 * CAPACITY
"""Of the memory between two stages: it should hold what one step passes on, so that the sender can
go on. Pages that are never written are never taken."""

Broken = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Meeting:
    """File descriptors that all of `size` ranks hold: of the shared memory, and of the store of
    torch.distributed."""

    size: int
    capacity: int
    segment: int
    store: int

    @staticmethod
    def call(size: int, capacity: int = CAPACITY) -> Meeting:
        return Meeting(size, capacity, unnamed_file(segment_bytes(size, capacity)), unnamed_file(0))

    @property
    def fds(self) -> tuple[int, int]:
        return (self.segment, self.store)

    def connect(self, rank: int, device: torch.device, way: str, broken: Broken) -> Transport:
        """All ranks call it at about the same time. `way`: auto, shared_memory or distributed;
        `broken` is asked while waiting, whether somebody is gone. Raises EngineError,
        UnsupportedError."""
        shared = device.type == "cpu" and available()
        if way == "shared_memory" and not shared:
            raise UnsupportedError(
                "--parallel-transport shared_memory needs --device cpu on an x86 processor.",
                cure="Use auto.",
                param="parallel_transport",
            )
        if shared and way != "distributed":
            return SharedMemory(self.segment, rank, self.size, broken, self.capacity)
        from penstock.parallel.distributed import Distributed

        return Distributed(self.store, rank, self.size, device, CONNECT_S)


@dataclass(frozen=True, slots=True)
class Seat:
    """What one process needs to take its place: plain data, but the numbers of open files."""

    rank: int
    size: int
    part: int
    parts: int
    stage: int
    stages: int
    pulse: int
    """Words: 0 = the group is broken; 1 + RankGroup.number = that process's heartbeats"""
    group: Meeting | None
    peers: Meeting | None
    source: Meeting | None
    sink: Meeting | None

    def ranks(self) -> RankGroup:
        """The place, before anybody is connected."""
        stage = Stage(self.stage, self.stages)
        return RankGroup(self.rank, self.size, stage, self.part, self.parts)

    def pulses(self) -> Words:
        return Words(self.pulse, 1 + self.size * self.parts * self.stages)

    def connect(self, ranks: RankGroup, device: torch.device, way: str, broken: Broken) -> None:
        """Let `ranks` talk; all processes do so at about the same time, each from the first stage
        on. Raises EngineError, UnsupportedError."""
        if self.source is not None:
            ranks.source = self.source.connect(1, device, way, broken)
        if self.group is not None:
            ranks.transport = self.group.connect(self.rank, device, way, broken)
        if self.peers is not None:
            ranks.peers = self.peers.connect(self.part, device, way, broken)
        if self.sink is not None:
            ranks.sink = self.sink.connect(0, device, way, broken)

    @property
    def fds(self) -> tuple[int, ...]:
        meetings = (self.group, self.peers, self.source, self.sink)
        return (self.pulse, *(fd for meeting in meetings if meeting for fd in meeting.fds))

    def close(self) -> None:
        """This process needs no new connection; what is connected stays so."""
        for fd in self.fds:
            os.close(fd)


class World:
    """The meetings of `stages` x `parts` groups of `size` ranks. Process 0 leads: rank 0 of the
    first part of the last stage, where tokens are sampled; the others follow part by part and
    stage by stage (see RankGroup.number)."""

    def __init__(self, size: int, stages: int = 1, parts: int = 1) -> None:
        self.size, self.stages, self.parts = size, stages, parts
        self.processes = size * stages * parts
        self._pulse = unnamed_file(words_bytes(1 + self.processes))
        groups = range(stages * parts)
        self._groups = [Meeting.call(size) if size > 1 else None for _ in groups]
        peers = range(stages * size)
        self._peers = [Meeting.call(parts) if parts > 1 else None for _ in peers]
        self._links = [
            [Meeting.call(2, LINK_CAPACITY) for _ in range(parts * size)] for _ in range(stages - 1)
        ]
        self._open = True

    def seat(self, number: int) -> Seat:
        """See RankGroup.number."""
        back, within = divmod(number, self.parts * self.size)
        part, rank = divmod(within, self.size)
        stage = self.stages - 1 - back
        return Seat(
            rank,
            self.size,
            part,
            self.parts,
            stage,
            self.stages,
            self._pulse,
            group=self._groups[stage * self.parts + part],
            peers=self._peers[stage * self.size + rank],
            source=self._links[stage - 1][within] if stage else None,
            sink=self._links[stage][within] if stage < self.stages - 1 else None,
        )

    def close(self) -> None:
        """This process needs no new connection. May be called twice."""
        if self._open:
            self._open = False
            links = [link for links in self._links for link in links]
            meetings = [*self._groups, *self._peers, *links]
            for fd in (self._pulse, *(fd for one in meetings if one for fd in one.fds)):
                os.close(fd)
