"""The block pool: who holds which block of KV, and which full blocks can be read again.

A block is in exactly one of three roles:

    free        no holder, nothing to read in it                    (a stack)
    referenced  one holder or more; it may be indexed as well
    idle        no holder, but indexed: a later prefix hit may take it   (LRU order)

Order of reuse is by counters of the queue itself, never by wall time, so it replays.
"""

from __future__ import annotations

from collections.abc import Iterable


class BlockPool:
    """`num_blocks` blocks of `block_size` tokens, shared by all KV groups of a model.

    retain: keep full blocks readable after their last holder left (prefix caching). Without it
    the index only serves requests that are alive together (the n choices of one prompt).
    """

    def __init__(self, num_blocks: int, block_size: int, retain: bool = True) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.retain = retain
        self._refs = [0] * num_blocks
        self._free = list(range(num_blocks - 1, -1, -1))
        self._idle: dict[int, None] = {}
        self._index: dict[tuple[int, bytes], int] = {}
        self._key_of: dict[int, tuple[int, bytes]] = {}
        self._watched = -1
        self._changes: dict[bytes, bool] = {}

    def watch(self, group: int) -> None:
        """From now on note which names of this KV group come and go, for `take_changes`."""
        self._watched = group

    def take_changes(self) -> tuple[list[bytes], list[bytes]]:
        """Names (stored, removed) since the last call; one that came and went is told once."""
        if not self._changes:
            return [], []
        changes, self._changes = self._changes, {}
        stored = [name for name, there in changes.items() if there]
        return stored, [name for name, there in changes.items() if not there]

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_idle(self) -> int:
        return len(self._idle)

    @property
    def num_available(self) -> int:
        """Blocks that `allocate` can give: free ones and, once evicted, idle ones."""
        return len(self._free) + len(self._idle)

    def lookup(self, group: int, block_hash: bytes) -> int | None:
        return self._index.get((group, block_hash))

    def is_idle(self, block: int) -> bool:
        return block in self._idle

    def allocate(self, count: int) -> list[int]:
        """Blocks with one reference each. The caller has checked `num_available`."""
        taken = []
        for _ in range(count):
            block = self._free.pop() if self._free else self._evict()
            self._refs[block] = 1
            taken.append(block)
        return taken

    def _evict(self) -> int:
        block = next(iter(self._idle))
        del self._idle[block]
        self._unname(block)
        return block

    def _unname(self, block: int) -> None:
        key = self._key_of.pop(block)
        del self._index[key]
        if key[0] == self._watched:
            self._changes[key[1]] = False

    def take(self, blocks: Iterable[int]) -> None:
        """One more reference to each of these indexed blocks (a prefix hit)."""
        for block in blocks:
            if self._refs[block] == 0:
                del self._idle[block]
            self._refs[block] += 1

    def commit(self, block: int, group: int, block_hash: bytes) -> None:
        """The referenced block is full and may be read by others under this name.

        When two requests computed the same block, the first keeps the name.
        """
        key = (group, block_hash)
        if block not in self._key_of and key not in self._index:
            self._index[key] = block
            self._key_of[block] = key
            if group == self._watched:
                self._changes[block_hash] = True

    def release(self, blocks: Iterable[int]) -> None:
        """Give up one reference to each, in this order. Hand tails in first: what was given up
        first is evicted first, and a prefix without its tail is still worth reading."""
        for block in blocks:
            self._refs[block] -= 1
            if self._refs[block]:
                continue
            if block not in self._key_of:
                self._free.append(block)
            elif self.retain:
                self._idle[block] = None
            else:
                self._unname(block)
                self._free.append(block)

    def check(self, held: Iterable[int]) -> None:
        """Prove that the books balance; `held` lists every reference that somebody says it has.

        Raises AssertionError naming the imbalance.
        """
        counted = [0] * self.num_blocks
        for block in held:
            counted[block] += 1
        assert counted == self._refs, "reference counts differ from the tables of the holders"
        referenced = sum(1 for refs in self._refs if refs)
        total = referenced + len(self._free) + len(self._idle)
        assert total == self.num_blocks, f"{total} blocks in the books, {self.num_blocks} exist"
        assert len(set(self._free)) == len(self._free), "a block is free twice"
        assert all(self._refs[b] == 0 for b in self._free), "a free block is referenced"
        assert all(self._refs[b] == 0 for b in self._idle), "an idle block is referenced"
        assert all(b in self._key_of for b in self._idle), "an idle block has no name"
        assert not any(b in self._key_of for b in self._free), "a free block has a name"
        assert {k: b for b, k in self._key_of.items()} == self._index, "index and names differ"
