"""Prompts as segments of named tokens, so that what two prompts share is exact.

Equal segments hold equal tokens. A prompt may stop inside a segment (`tokens` less than its
length); whatever follows differs from the rest of that segment.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from penstock.workload.draws import mix

_STEP = 0x9E3779B97F4A7C15


class Segment(NamedTuple):
    """`tokens` first tokens of the text named `id` (64 bits)."""

    id: int
    tokens: int


Prompt = tuple[Segment, ...]


def name_of(*parts: int) -> int:
    """A 64-bit name for a tuple of whole numbers."""
    state = len(parts)
    for part in parts:
        state = mix(state + (part + 1) * _STEP)
    return state


def length(prompt: Iterable[Segment]) -> int:
    """Tokens of a prompt."""
    return sum(segment.tokens for segment in prompt)


def cut(prompt: Prompt, tokens: int) -> Prompt:
    """The first `tokens` tokens."""
    kept = []
    for segment in prompt:
        if tokens <= 0:
            break
        kept.append(Segment(segment.id, min(segment.tokens, tokens)))
        tokens -= segment.tokens
    return tuple(kept)


def token_ids(prompt: Prompt, vocab_size: int, first: int = 0) -> list[int]:
    """Token ids from `first` to below `vocab_size`: the same segment gives the same ids."""
    span = vocab_size - first
    return [
        first + mix(segment.id + place * _STEP) % span
        for segment in prompt
        for place in range(segment.tokens)
    ]


def block_ids(prompt: Prompt, block_tokens: int, partial: bool = False) -> list[int]:
    """A 63-bit name for each full block of the prompt (`partial`: and for the rest), chained: two
    names are equal if and only if the prompts agree from the start to the block's end."""
    names: list[int] = []
    parent, filled, pieces = 0, 0, [0]
    for segment in prompt:
        start = 0
        while start < segment.tokens:
            taken = min(segment.tokens - start, block_tokens - filled)
            pieces += (segment.id, start, taken)
            start, filled = start + taken, filled + taken
            if filled == block_tokens:
                parent = name_of(*pieces)
                names.append(parent >> 1)
                filled, pieces = 0, [parent]
    if partial and filled:
        names.append(name_of(*pieces) >> 1)
    return names


class EndlessCache:
    """Which part of a prompt came before: the ideal that no real cache beats.

    A trie over segments; memory grows with the number of different segments.
    """

    def __init__(self) -> None:
        self._longest: dict[tuple[int, int], int] = {}
        """(place in the trie, segment id) -> most tokens of it seen there"""

    def matched(self, prompt: Prompt) -> int:
        """Tokens at the start of the prompt that were added before."""
        place, found = 0, 0
        for segment in prompt:
            known = min(self._longest.get((place, segment.id), 0), segment.tokens)
            found += known
            if known < segment.tokens:
                break
            place = name_of(place, segment.id, segment.tokens)
        return found

    def add(self, prompt: Prompt) -> None:
        place = 0
        for segment in prompt:
            key = (place, segment.id)
            self._longest[key] = max(self._longest.get(key, 0), segment.tokens)
            place = name_of(place, segment.id, segment.tokens)
