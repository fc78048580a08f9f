"""Collectives through memory that the processes of one host share.

Each rank has two buffers that all can read, and a counter of the operations that it has entered:

    wait until all counters >= k - 1, write own buffer k mod 2, own counter = k,
    wait until the sources' counters >= k, read their buffers

A rank that has entered operation k - 1 has done with reading k - 2, so the first wait is what lets
a buffer be used again; it is nearly always over when it begins. Larger tensors go in pieces.

Counters are aligned 8-byte words, written after the data: x86 keeps stores in order (TSO), and so
this transport is offered there only. The memory is a file descriptor without a name, handed to the
children: nothing is left behind, however a process ends.
"""

from __future__ import annotations

import mmap
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from penstock.errors import EngineError

LINE = 64
"""bytes of a cache line; each word has one of its own"""
PAGE = 4096
CAPACITY = 1 << 20
"""bytes of one buffer"""
SPINS = 50
"""looks at a counter before the processor is offered to others (cores may be fewer than ranks)"""
OFFERS = 2000
"""such offers before a wait begins to sleep"""
SLEEP_S = 0.0002


def unnamed_file(size: int) -> int:
    """A file descriptor over `size` zero bytes of memory (or disk, where there is no memfd)."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("penstock")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd


def available() -> bool:
    """Whether this processor keeps stores in order."""
    return platform.machine().lower() in ("x86_64", "amd64")


class Words:
    """8-byte counters in shared memory, a cache line each."""

    def __init__(self, fd: int, count: int) -> None:
        self._map = mmap.mmap(fd, words_bytes(count))
        self._words = memoryview(self._map).cast("q")

    def __getitem__(self, index: int) -> int:
        return self._words[index * LINE // 8]

    def __setitem__(self, index: int, value: int) -> None:
        self._words[index * LINE // 8] = value

    def close(self) -> None:
        self._words.release()
        self._map.close()


def words_bytes(count: int) -> int:
    return -(-count * LINE // PAGE) * PAGE


def segment_bytes(size: int, capacity: int = CAPACITY) -> int:
    """Memory of a group of `size` ranks; pages are taken when they are first written."""
    return words_bytes(size) + 2 * size * capacity


class SharedMemory:
    """A Transport over a segment of `segment_bytes`, for tensors on the CPU."""

    def __init__(
        self,
        fd: int,
        rank: int,
        size: int,
        broken: Callable[[], bool],
        capacity: int = CAPACITY,
    ) -> None:
        """broken: asked while waiting, whether somebody is gone."""
        self._rank = rank
        self._ranks = range(size)
        self._broken = broken
        self._capacity = capacity
        self._done = Words(fd, size)
        self._count = 0
        self._map = mmap.mmap(fd, segment_bytes(size, capacity))
        whole = torch.frombuffer(self._map, dtype=torch.uint8)[words_bytes(size) :]
        self._bytes = whole.view(2, size, capacity)
        self._typed: dict[torch.dtype, list[list[Tensor]]] = {}

    def all_reduce(self, x: Tensor) -> None:
        """See Transport."""
        flat = x.view(-1)
        buffers = self._buffers(x.dtype)
        room = self._capacity // x.itemsize
        for first in range(0, len(flat), room):
            part = flat[first : first + room]
            slots = [slot[: len(part)] for slot in buffers[self._enter()]]
            slots[self._rank].copy_(part)
            self._publish()
            self._wait(self._ranks, self._count)
            add_in_order(slots, part)

    def gather(self, x: Tensor, parts: list[Tensor]) -> None:
        """See Transport."""
        buffers = self._buffers(x.dtype)
        room = self._capacity // x.itemsize
        mine, flats = x.view(-1), [part.view(-1) for part in parts]
        for first in range(0, max(map(len, flats)), room):
            slots = buffers[self._enter()]
            if self._rank:
                piece = mine[first : first + room]
                slots[self._rank][: len(piece)].copy_(piece)
                self._publish()
                continue
            self._publish()
            self._wait(self._ranks, self._count)
            for rank, flat in enumerate(flats):
                piece = flat[first : first + room]
                source = slots[rank][: len(piece)] if rank else mine[first : first + room]
                piece.copy_(source)

    def all_gather(self, x: Tensor, parts: list[Tensor]) -> None:
        """See Transport."""
        buffers = self._buffers(x.dtype)
        room = self._capacity // x.itemsize
        mine, flats = x.view(-1), [part.view(-1) for part in parts]
        for first in range(0, max(map(len, flats)), room):
            slots = buffers[self._enter()]
            piece = mine[first : first + room]
            slots[self._rank][: len(piece)].copy_(piece)
            self._publish()
            self._wait(self._ranks, self._count)
            for slot, flat in zip(slots, flats, strict=True):
                piece = flat[first : first + room]
                piece.copy_(slot[: len(piece)])

    def broadcast(self, x: Tensor) -> None:
        """See Transport."""
        flat = x.view(-1)
        buffers = self._buffers(x.dtype)
        room = self._capacity // x.itemsize
        for first in range(0, len(flat), room):
            piece = flat[first : first + room]
            source = buffers[self._enter()][0][: len(piece)]
            if self._rank == 0:
                source.copy_(piece)
            self._publish()
            if self._rank:
                self._wait((0,), self._count)
                piece.copy_(source)

    def _buffers(self, dtype: torch.dtype) -> list[list[Tensor]]:
        """By parity and rank, as elements of `dtype`."""
        found = self._typed.get(dtype)
        if found is None:
            found = [[slot.view(dtype) for slot in side] for side in self._bytes]
            self._typed[dtype] = found
        return found

    def _enter(self) -> int:
        """Begin the next operation; the parity of the buffers to use."""
        self._wait(self._ranks, self._count)
        self._count += 1
        return self._count & 1

    def _publish(self) -> None:
        self._done[self._rank] = self._count

    def _wait(self, ranks: Iterable[int], count: int) -> None:
        done = self._done
        for rank in ranks:
            looks = 0
            while done[rank] < count:
                looks += 1
                if looks > SPINS:
                    self._yield(looks)

    def _yield(self, looks: int) -> None:
        if self._broken():
            raise EngineError("Another rank of the group is gone.")
        # Sleeping, even for no time, also lets the other threads of this process go on.
        time.sleep(0 if looks < OFFERS else SLEEP_S)


def add_in_order(slots: list[Tensor], out: Tensor) -> None:
    """out = slots[0] + slots[1] + …, in float32 at least, rounded once."""
    if len(slots) == 1:
        out.copy_(slots[0])
    elif len(slots) == 2:
        torch.add(slots[0], slots[1], out=out)
    else:
        total = slots[0] + slots[1] if out.itemsize >= 4 else slots[0].float() + slots[1]
        for slot in slots[2:]:
            total += slot
        out.copy_(total)
