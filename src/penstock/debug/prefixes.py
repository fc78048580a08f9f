"""Prefix reuse: what the cache gave, what a boundless and perfect one would have given, and where
the turns of a session part.

Ideal: a prompt's tokens that stand, as a prefix, in any prompt and output scheduled before it
(one fewer than the prompt: its last token is always computed). It knows no blocks, no eviction, no
engines; only salts keep requests apart. So ideal >= actual, always.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from penstock.core.records import RequestRecord
from penstock.observe.reader import Log


@dataclass(frozen=True, slots=True)
class Reuse:
    """Of one request, in tokens."""

    record: RequestRecord
    actual: int
    ideal: int


@dataclass(frozen=True, slots=True)
class Turn:
    """A request of a session beside the one before it."""

    session: str
    before: RequestRecord
    record: RequestRecord
    diverges: int
    """first position at which its prompt leaves the earlier prompt and output; their end if it
    holds them whole"""
    known: int
    """tokens of the earlier prompt"""
    written: int
    """tokens of the earlier output"""

    @property
    def whole(self) -> bool:
        """It holds all of the earlier prompt and, but for its stop id, output."""
        return self.diverges >= self.known + self.written - 1


@dataclass(slots=True)
class Report:
    reuses: list[Reuse] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    without_ids: int = 0
    """requests whose ids are redacted"""

    @property
    def tokens(self) -> int:
        return sum(reuse.record.num_prompt for reuse in self.reuses)

    @property
    def actual(self) -> float:
        """Share of prompt tokens."""
        return sum(reuse.actual for reuse in self.reuses) / max(1, self.tokens)

    @property
    def ideal(self) -> float:
        return sum(reuse.ideal for reuse in self.reuses) / max(1, self.tokens)


class Seen:
    """Every prefix that was computed, by a rolling hash a position."""

    def __init__(self) -> None:
        self._prefixes: set[int] = set()

    def match(self, salt: str, ids: Sequence[int]) -> int:
        """Leading ids that stand as a prefix already."""
        rolling = hash(salt)
        for place, token in enumerate(ids):
            rolling = hash((rolling, token))
            if rolling not in self._prefixes:
                return place
        return len(ids)

    def add(self, salt: str, ids: Iterable[int]) -> None:
        rolling = hash(salt)
        for token in ids:
            rolling = hash((rolling, token))
            self._prefixes.add(rolling)


def report(log: Log) -> Report:
    """Of all requests that were scheduled."""
    made, seen = Report(), Seen()
    ran = [r for r in log.requests if r.choices[0].scheduled is not None]
    for record in sorted(ran, key=lambda r: r.received_s + (r.choices[0].scheduled or 0.0)):
        if record.prompt_ids is None:
            made.without_ids += 1
            continue
        ideal = min(seen.match(record.salt, record.prompt_ids), record.num_prompt - 1)
        made.reuses.append(Reuse(record, record.cached_tokens, ideal))
        seen.add(record.salt, record.prompt_ids)
        for choice in record.choices:
            seen.add(record.salt, [*record.prompt_ids, *(choice.ids or ())])
    made.turns = turns(log.requests)
    return made


def turns(requests: Iterable[RequestRecord]) -> list[Turn]:
    """Each request of a session that holds more than the beginning of an earlier one's prompt,
    beside the latest of these."""
    last: dict[str, RequestRecord] = {}
    found: list[Turn] = []
    for record in requests:
        if not record.session or record.prompt_ids is None:
            continue
        before = last.get(record.session)
        last[record.session] = record
        if before is not None and before.prompt_ids is not None:
            output = before.choices[0].ids or []
            place = common([*before.prompt_ids, *output], record.prompt_ids)
            turn = Turn(record.session, before, record, place, len(before.prompt_ids), len(output))
            found.append(turn)
    return found


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common prefix."""
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return place
    return min(len(one), len(other))
