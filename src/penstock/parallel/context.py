"""Context parallelism: the tokens of a long chunk divided over ranks that hold the same weights.

A row of a step that is long enough is cut into 2 N equal spans; rank i computes the i-th from the
front and the i-th from the back, so that all have the same work under a causal mask wherever the
row stands in its sequence, and keys and values are gathered layer by layer (both as in Llama 3,
Dubey et al. 2024, 3.3.2). So every rank keeps the whole cache and can decode. What is too short to
be cut is rank 0's, which samples; it has the last span of every row as well. A step without a long
row is computed by all alike, without a word between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LEAST_SPAN = 8
"""Tokens of a span: below, exchanging costs more than is gained."""


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens start .. start + count - 1 of the sequence of row `row` of a step."""

    row: int
    start: int
    count: int


def least_row(parts: int) -> int:
    """Tokens of the shortest row that is cut."""
    return 2 * parts * LEAST_SPAN


def divide(
    starts: Sequence[int], counts: Sequence[int], whole: Sequence[bool], parts: int
) -> list[list[Span]] | None:
    """The spans of each of `parts` ranks, in the order of rows; None when no row is cut.

    Row r computes counts[r] tokens from starts[r] on; `whole` rows are never cut.
    """
    least = least_row(parts)
    cut = [count >= least and not one for count, one in zip(counts, whole, strict=True)]
    if not any(cut):
        return None
    found: list[list[Span]] = [[] for _ in range(parts)]
    for row, (start, count) in enumerate(zip(starts, counts, strict=True)):
        if not cut[row]:
            found[0].append(Span(row, start, count))
            continue
        ends = [start + count * i // (2 * parts) for i in range(2 * parts + 1)]
        for rank, spans in enumerate(found):
            runs = [(rank, rank + 1), (2 * parts - 1 - rank, 2 * parts - rank)]
            if runs[0][1] == runs[1][0]:  # the innermost two touch
                runs = [(runs[0][0], runs[1][1])]
            spans += [Span(row, ends[a], ends[b] - ends[a]) for a, b in runs]
    return found
