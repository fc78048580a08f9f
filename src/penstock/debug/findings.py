"""What a rule says, and what the rules share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock.core.records import RequestRecord
from penstock.observe.reader import Log

SHOWN = 5
"""ids in a finding"""
LEAST = 3
"""requests that a pattern has at least"""
SHARE = 0.2
"""of all requests that a pattern has at least, where single ones may be meant"""


@dataclass(frozen=True, slots=True)
class Finding:
    fault: str
    """its name, one of those in `docs/doctor.md`"""
    what: str
    """one sentence with the numbers"""
    cause: str
    next: str
    ids: list[str] = field(default_factory=list)
    """some of the requests concerned"""
    numbers: dict[str, Any] = field(default_factory=dict)


Rule = Callable[[Log], Finding | None]


def ids_of(records: Sequence[RequestRecord]) -> list[str]:
    return [record.id for record in records[:SHOWN]]


def is_pattern(found: Sequence[RequestRecord], of: Sequence[RequestRecord]) -> bool:
    """Whether these are too many of those to be single cases."""
    return len(found) >= LEAST and len(found) >= SHARE * len(of)
