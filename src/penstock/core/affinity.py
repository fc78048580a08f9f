"""Who holds which prefix, and who had which session: what the router's affinity rests on.

The prefix index maps a block's chained hash to the set of engines that hold it, one bit each. An
engine that holds a block holds all blocks before it (tails are evicted first), so how deep each
engine's match goes is found by binary search for all engines at once: log2(blocks) look-ups where
all agree, a few more where they differ. Should a block in the middle be missing after all, a
match is over-estimated, which costs a prefill and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

MAX_SENT = 1 << 16
"""Blocks whose sending is remembered; at 16 tokens each, a million tokens."""
MAX_SESSIONS = 1 << 16


class PrefixIndex:
    """Two layers: blocks that engines reported, and blocks that they were sent to compute.

    With reports (`stored`, `removed`) the second is `settled` when the request's first token
    comes, and the index is exact. Without, what was sent stays until newer sendings push it out.
    """

    def __init__(self, max_sent: int = MAX_SENT) -> None:
        self._max_sent = max_sent
        self._held: dict[bytes, int] = {}
        self._sent: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._held) + len(self._sent)

    def stored(self, engine: int, hashes: Iterable[bytes]) -> None:
        held, bit = self._held, 1 << engine
        for name in hashes:
            held[name] = held.get(name, 0) | bit

    def removed(self, engine: int, hashes: Iterable[bytes]) -> None:
        _clear(self._held, hashes, engine)

    def sent(self, engine: int, hashes: Iterable[bytes]) -> None:
        """A request with these blocks goes to the engine: the next one like it will find them."""
        sent, bit = self._sent, 1 << engine
        for name in hashes:
            sent[name] = sent.pop(name, 0) | bit  # popped, so that the oldest stand first
        while len(sent) > self._max_sent:
            del sent[next(iter(sent))]

    def settled(self, engine: int, hashes: Iterable[bytes]) -> None:
        """What became of a sending is reported by now."""
        _clear(self._sent, hashes, engine)

    def clear(self, engine: int) -> None:
        """The engine lost everything."""
        for layer in (self._held, self._sent):
            _clear(layer, list(layer), engine)

    def deepest(self, hashes: Sequence[bytes], among: int = -1) -> int:
        """The engines, as bits, that hold the most blocks from the start; 0: none holds any."""
        best, low, high = 0, -1, len(hashes)
        while high - low > 1:
            middle = (low + high) // 2
            if holders := self._holders(hashes[middle]) & among:
                best, low = holders, middle
            else:
                high = middle
        return best

    def depths(self, hashes: Sequence[bytes], among: int = -1) -> dict[int, int]:
        """Blocks from the start that each engine holds, for engines that hold any. among: as bits,
        those that are asked for."""
        depths: dict[int, int] = {}
        if not hashes or not (first := self._holders(hashes[0]) & among):
            return depths
        # Spans (low, holders there, high, holders there): the engines that hold block `low` but
        # not `high` end between the two. Nobody holds the block after the last.
        spans = [(0, first, len(hashes), 0)]
        while spans:
            low, at_low, high, at_high = spans.pop()
            ending = at_low & ~at_high
            if not ending:
                continue
            if high - low > 1:
                middle = (low + high) // 2
                holders = self._holders(hashes[middle]) & at_low
                spans.append((low, at_low, middle, holders))
                spans.append((middle, holders, high, at_high))
                continue
            while ending:
                bit = ending & -ending
                depths[bit.bit_length() - 1] = high
                ending ^= bit
        return depths

    def _holders(self, name: bytes) -> int:
        return self._held.get(name, 0) | self._sent.get(name, 0)


def _clear(layer: dict[bytes, int], hashes: Iterable[bytes], engine: int) -> None:
    keep = ~(1 << engine)
    for name in hashes:
        if rest := layer.get(name, 0) & keep:
            layer[name] = rest
        else:
            layer.pop(name, None)


class Sessions:
    """The engine of each session's last request, of the latest `limit` sessions."""

    def __init__(self, limit: int = MAX_SESSIONS) -> None:
        self._limit = limit
        self._engines: dict[str, int] = {}

    def get(self, session: str) -> int | None:
        return self._engines.get(session)

    def put(self, session: str, engine: int) -> None:
        self._engines.pop(session, None)
        self._engines[session] = engine
        if len(self._engines) > self._limit:
            del self._engines[next(iter(self._engines))]

    def drop(self, engine: int) -> None:
        gone = [session for session, last in self._engines.items() if last == engine]
        for session in gone:
            del self._engines[session]
