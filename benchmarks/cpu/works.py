"""The works that every engine is given: lists of token ids, greedy, nothing ends early.

A      one request: a prompt of 128 tokens, 128 new ones
B      one request: a prompt of 1,024 tokens, one new one
C      32 requests at once: prompts of 128 to 512 tokens, 64 to 128 new ones
Dcold  32 requests at once: 512 tokens that all share and nobody has seen, 32 of their own, 32 new
Dwarm  the same, after one request that brought the shared tokens into the cache
H      16 requests at once: prompts of 128 tokens, 128 new ones; compared with HTTP

Every work and round has ids of its own, so that no cache helps A, B, C and H; lengths are the same
in every round. (The works of the figures in baseline.json.)
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

LOWEST, HIGHEST = 300, 40_000
"""ids that every model and tokenizer here has, away from special ones"""

Request = tuple[list[int], int]
"""prompt, tokens to make"""


@dataclass(frozen=True, slots=True)
class Work:
    """Requests that are sent at once; `before` are sent first and not timed."""

    requests: list[Request]
    before: list[Request] = field(default_factory=list)

    @property
    def num_input(self) -> int:
        return sum(len(prompt) for prompt, _ in self.requests)

    @property
    def num_output(self) -> int:
        return sum(count for _, count in self.requests)


def work(name: str, round: int, vocab_size: int, scale: int = 1) -> Work:
    """One of WORKS; scale: divides all lengths, to try things out."""
    ids = _Ids(f"{name}/{round}", vocab_size, scale)
    return WORKS[name](ids)


class _Ids:
    def __init__(self, seed: str, vocab_size: int, scale: int) -> None:
        self._random = random.Random(seed)
        self._highest = min(HIGHEST, vocab_size)
        self._scale = scale

    def length(self, count: int) -> int:
        return max(1, count // self._scale)

    def of(self, count: int) -> list[int]:
        draw = self._random.randrange
        return [draw(LOWEST, self._highest) for _ in range(self.length(count))]


def _a(ids: _Ids) -> Work:
    return Work([(ids.of(128), max(2, ids.length(128)))])


def _b(ids: _Ids) -> Work:
    return Work([(ids.of(1024), 1)])


def _c(ids: _Ids) -> Work:
    lengths = random.Random(7)
    spans = [(lengths.randint(128, 512), lengths.randint(64, 128)) for _ in range(32)]
    return Work([(ids.of(prompt), ids.length(output)) for prompt, output in spans])


def _d(ids: _Ids, warm: bool) -> Work:
    shared = ids.of(512)
    requests = [(shared + ids.of(32), ids.length(32)) for _ in range(32)]
    return Work(requests, [(shared, 1)] if warm else [])


def _h(ids: _Ids) -> Work:
    return Work([(ids.of(128), max(2, ids.length(128))) for _ in range(16)])


WORKS: dict[str, Callable[[_Ids], Work]] = {
    "A": _a,
    "B": _b,
    "C": _c,
    "Dcold": lambda ids: _d(ids, warm=False),
    "Dwarm": lambda ids: _d(ids, warm=True),
    "H": _h,
}
