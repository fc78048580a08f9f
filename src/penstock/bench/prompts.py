"""Prompts of a wanted length that no two requests share, unless they are meant to."""

from __future__ import annotations

import random
from dataclasses import dataclass

TEXT = """time year people way day man thing woman life child world school state family student
group country problem hand part place case week company system program question work government
number night point home water room mother area money story fact month lot right study book"""
WORDS = TEXT.split()
"""Common words: about one token each in any vocabulary."""

FIRST_ID = 100
"""No id below is drawn: most vocabularies have their special tokens there or at the very end."""

SAFE_VOCAB_SIZE = 1000
"""What is assumed when nobody tells: every vocabulary in use is larger."""


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompt `index` of group `group`: `shared_len` tokens that the group has in common, then its
    own up to `length`. A pure function of (seed, group, index)."""

    seed: int
    length: int
    shared_len: int = 0
    vocab_size: int = 0
    """0: not known yet"""

    def ids(self, group: int, index: int) -> list[int]:
        """Random token ids, below vocab_size."""
        first = min(FIRST_ID, self.vocab_size // 4)
        shared, own = self._streams(group, index)
        ids = [shared.randrange(first, self.vocab_size) for _ in range(self.shared_len)]
        return ids + [
            own.randrange(first, self.vocab_size) for _ in range(self.length - self.shared_len)
        ]

    def text(self, group: int, index: int, words_per_token: float = 1.0) -> str:
        """Random words, as many as make up the lengths at the given ratio; at least one."""
        num_shared = round(self.shared_len * words_per_token)
        num_own = max(1, round(self.length * words_per_token) - num_shared)
        shared, own = self._streams(group, index)
        return " ".join(shared.choices(WORDS, k=num_shared) + own.choices(WORDS, k=num_own))

    def _streams(self, group: int, index: int) -> tuple[random.Random, random.Random]:
        """Randomness of the shared part and of the prompt's own part."""
        name = f"{self.seed}/{group}"
        return random.Random(name), random.Random(f"{name}/{index}")
