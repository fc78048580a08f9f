"""Block tables of requests, one a KV group: matching prefixes, growing, trimming windows.

For a window w, a query at position p sees keys p - w + 1 .. p, so a block whose last key lies
before that is given back and marked DROPPED; the tables of all groups stay equally long.
"""

from __future__ import annotations

from penstock.core import prefix
from penstock.core.blocks import BlockPool
from penstock.core.plan import BlockDelta, KVGroup
from penstock.core.request import Request

DROPPED = -1


class BlockTables:
    def __init__(self, pool: BlockPool, groups: tuple[KVGroup, ...]) -> None:
        self.pool = pool
        self.groups = groups
        self._windows = [(g, group.window) for g, group in enumerate(groups) if group.window]

    def longest(self) -> int:
        """Most tokens whose KV the pool can hold for one request alone.

        A window group is counted in full, for a chunk may be as long as the request.
        """
        return self.pool.num_blocks // len(self.groups) * self.pool.block_size

    def _first_seen(self, position: int, window: int) -> int:
        """Index of the first block that a query at `position` sees."""
        return max(0, position - window + 1) // self.pool.block_size

    def match(self, request: Request) -> int:
        """Blocks from the start that can be read from the cache in every group.

        The last known token is always computed, because its logits are wanted.
        """
        if not request.reads_cache:
            return 0
        hashes, lookup = request.hashes, self.pool.lookup
        hits = min(len(hashes), (len(request.tokens) - 1) // self.pool.block_size)
        for g, group in enumerate(self.groups):
            if not group.window:
                found = 0
                while found < hits and lookup(g, hashes[found]) is not None:
                    found += 1
                hits = found
        while hits and (gap := self._gap(hashes, hits)) is not None:
            hits = gap
        return hits

    def _gap(self, hashes: list[bytes], hits: int) -> int | None:
        """The last block that a window needs before `hits` and the cache lacks."""
        for g, window in self._windows:
            for index in range(
                hits - 1, self._first_seen(hits * self.pool.block_size, window) - 1, -1
            ):
                if self.pool.lookup(g, hashes[index]) is None:
                    return index
        return None

    def take(self, request: Request, hits: int) -> int:
        """Read the first `hits` blocks from the cache; returns the tokens they hold."""
        tokens = hits * self.pool.block_size
        for g, group in enumerate(self.groups):
            first = self._first_seen(tokens, group.window) if group.window else 0
            first = min(first, hits)
            found = [self.pool.lookup(g, h) for h in request.hashes[first:hits]]
            blocks = [b for b in found if b is not None]
            self.pool.take(blocks)
            request.blocks[g] = [DROPPED] * first + blocks
            request.first_needed[g] = first
        request.capacity = tokens
        request.commits = hits
        return tokens

    def needed(self, request: Request, hits: int, chunk: int) -> int:
        """Blocks that must be available before `request` can read all its known tokens.

        hits: blocks to be read from the cache, of which the idle ones stop being available;
        -1 when it runs already. A window group holds at most the window and one chunk.
        """
        size = self.pool.block_size
        have = len(request.blocks[0]) if hits < 0 else hits
        total = -(-len(request.tokens) // size)
        need = 0
        for g, group in enumerate(self.groups):
            most = total - have
            first = 0
            if group.window:
                most = min(most, -(-(group.window + chunk) // size) + 1)
                first = self._first_seen(have * size, group.window)
            need += most
            if hits > 0:
                idle = (self.pool.lookup(g, h) for h in request.hashes[first:hits])
                need += sum(1 for b in idle if b is not None and self.pool.is_idle(b))
        return need

    def fits(self, request: Request, end: int) -> bool:
        return self._missing(request, end) * len(self.groups) <= self.pool.num_available

    def _missing(self, request: Request, end: int) -> int:
        return -(-(end - request.capacity) // self.pool.block_size)

    def extend(self, request: Request, end: int) -> list[BlockDelta]:
        """Blocks for tokens up to `end` in every group. The caller has checked `fits`."""
        count = self._missing(request, end)
        deltas = []
        for g, table in enumerate(request.blocks):
            new = self.pool.allocate(count)
            deltas.append(BlockDelta(request.slot, g, len(table), new))
            table.extend(new)
        request.capacity += count * self.pool.block_size
        return deltas

    def trim(self, request: Request) -> None:
        """Give back the blocks that no query from `computed` on can see."""
        for g, window in self._windows:
            table, first = request.blocks[g], request.first_needed[g]
            keep = min(self._first_seen(request.computed, window), len(table))
            if keep > first:
                self.pool.release(table[first:keep])
                table[first:keep] = [DROPPED] * (keep - first)
                request.first_needed[g] = keep

    def name_blocks(self, request: Request) -> None:
        """Append to its hashes those of its full blocks of known tokens."""
        hashes, given, size = request.hashes, request.submission.block_hashes, self.pool.block_size
        if given:
            hashes.extend(given[len(hashes) : len(request.tokens) // size])
        else:
            prefix.extend(hashes, request.key, request.tokens, size)

    def commit(self, request: Request, index: int) -> None:
        for g, table in enumerate(request.blocks):
            if table[index] != DROPPED:
                self.pool.commit(table[index], g, request.hashes[index])

    def release(self, request: Request) -> None:
        """Give back everything, tails first (see BlockPool.release)."""
        for g, table in enumerate(request.blocks):
            self.pool.release(b for b in reversed(table) if b != DROPPED)
            request.blocks[g] = []
            request.first_needed[g] = 0
        request.capacity = 0
        request.commits = 0
