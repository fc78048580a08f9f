"""Who is just computing which block, and who waits for it.

When several requests with the same new prefix arrive together, one (the leader) computes it and
the others are held until the last block that they share is in the cache. Without this each would
compute it for itself (Strata calls it a delay hit).
"""

from __future__ import annotations

from collections.abc import Iterable

from penstock.core.request import Request


class SharedPrefixes:
    def __init__(self) -> None:
        self._leaders: dict[bytes, Request] = {}
        self._behind: dict[bytes, list[Request]] = {}
        self._awaited: dict[str, bytes] = {}

    @property
    def num_held(self) -> int:
        return len(self._awaited)

    @property
    def leading(self) -> bool:
        """Whether somebody computes blocks that others could wait for."""
        return bool(self._leaders)

    def lead(self, request: Request, hits: int) -> None:
        """`request` starts to compute its full blocks from index `hits` on."""
        for block_hash in request.hashes[hits:]:
            self._leaders.setdefault(block_hash, request)

    def wait(self, request: Request, hits: int, most: int) -> Request | None:
        """Hold `request` behind the leader of the last block that it could still read.

        hits: blocks that the cache holds already; most: blocks that it may read at all. Returns
        the leader, or None when nobody computes the next block.
        """
        hashes, last = request.hashes, hits
        end = min(most, len(hashes))
        while last < end and hashes[last] in self._leaders:
            last += 1
        if last == hits:
            return None
        awaited = hashes[last - 1]
        self._behind.setdefault(awaited, []).append(request)
        self._awaited[request.id] = awaited
        return self._leaders[awaited]

    def committed(self, request: Request, block_hash: bytes) -> Iterable[Request]:
        """The block is in the cache: those that waited for it may go on."""
        if self._leaders.get(block_hash) is request:
            del self._leaders[block_hash]
        return self._release(block_hash) if self._behind else ()

    def leader_left(self, request: Request) -> list[Request]:
        """It computes no further: whoever waited for its blocks must look again."""
        released: list[Request] = []
        for block_hash in request.hashes:
            if self._leaders.get(block_hash) is request:
                del self._leaders[block_hash]
                released.extend(self._release(block_hash))
        return released

    def _release(self, block_hash: bytes) -> list[Request]:
        released = self._behind.pop(block_hash, [])
        for request in released:
            del self._awaited[request.id]
        return released

    def drop(self, request: Request) -> None:
        """A held request ends."""
        awaited = self._awaited.pop(request.id)
        queue = self._behind[awaited]
        queue.remove(request)
        if not queue:
            del self._behind[awaited]

    def check(self, running: list[Request]) -> None:
        """Everybody who waits, waits for a block that a running request computes."""
        assert all(any(r is leader for r in running) for leader in self._leaders.values())
        assert all(h in self._leaders for h in self._behind), "held behind nobody"
        held = sum(len(queue) for queue in self._behind.values())
        assert held == len(self._awaited), "held requests do not balance"
