"""The rows of a step as arrays, all of them or one rank's part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from penstock.core.plan import StepPlan
from penstock.parallel.context import Span

Ints = NDArray[np.int64]


@dataclass(slots=True)
class Rows:
    """Row i computes counts[i] tokens of slots[i], from starts[i] on; tokens are packed row by
    row."""

    index: Ints
    """of the row in its plan"""
    slots: Ints
    starts: Ints
    counts: Ints
    tokens: Ints
    """id of the last input token, where a row has but one"""
    samples: NDArray[np.bool_]
    """whether the row's last token is followed by an output token"""
    positions: Ints = field(init=False)
    """of each token in its sequence"""
    owners: Ints = field(init=False)
    """the row of each token"""

    def __post_init__(self) -> None:
        counts, starts = self.counts, self.starts
        if len(counts) == int(counts.sum()):
            self.positions, self.owners = starts, np.arange(len(counts))
        else:
            ends = np.cumsum(counts)
            self.owners = np.repeat(np.arange(len(counts)), counts)
            self.positions = np.arange(ends[-1]) - np.repeat(ends - counts - starts, counts)

    @property
    def num_tokens(self) -> int:
        return len(self.positions)

    @property
    def lengths(self) -> Ints:
        """Tokens of each sequence once its row is computed."""
        return self.starts + self.counts


def rows_of(plan: StepPlan) -> Rows:
    return Rows(
        np.arange(len(plan.slots)),
        np.array(plan.slots, np.int64),
        np.array(plan.starts, np.int64),
        np.array(plan.counts, np.int64),
        np.array(plan.tokens, np.int64),
        np.array(plan.samples, np.bool_),
    )


def part_of(rows: Rows, spans: Sequence[Span]) -> Rows:
    """Those tokens alone; a span is a row of its own."""
    index = np.array([span.row for span in spans], np.int64)
    starts = np.array([span.start for span in spans], np.int64)
    counts = np.array([span.count for span in spans], np.int64)
    last = starts + counts == rows.lengths[index]
    tokens, samples = rows.tokens[index], rows.samples[index] & last
    return Rows(index, rows.slots[index], starts, counts, tokens, samples)
