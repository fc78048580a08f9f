from __future__ import annotations

from penstock.core.plan import StepPlan
from penstock.engine.rows import part_of, rows_of
from penstock.parallel.context import Span

PLAN = StepPlan(
    0, slots=[4, 2, 9], starts=[30, 0, 5], counts=[1, 4, 6], tokens=[7, 8, 9],
    samples=[True, False, True],
)  # fmt: skip


def test_tokens_are_packed_row_by_row() -> None:
    rows = rows_of(PLAN)
    assert rows.positions.tolist() == [30, 0, 1, 2, 3, 5, 6, 7, 8, 9, 10]
    assert rows.owners.tolist() == [0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]
    assert rows.lengths.tolist() == [31, 4, 11]
    assert rows.num_tokens == 11
    decodes = rows_of(StepPlan(0, [], [1, 0], [5, 6], [1, 1], [3, 4], [True, True]))
    assert (decodes.positions.tolist(), decodes.owners.tolist()) == ([5, 6], [0, 1])


def test_a_part_samples_where_it_has_the_last_token() -> None:
    part = part_of(rows_of(PLAN), [Span(0, 30, 1), Span(2, 5, 2), Span(2, 9, 2)])
    assert part.index.tolist() == [0, 2, 2]
    assert part.slots.tolist() == [4, 9, 9]
    assert part.positions.tolist() == [30, 5, 6, 9, 10]
    assert part.samples.tolist() == [True, False, True]
    assert part.tokens[0] == 7
