from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.parallel.context import LEAST_SPAN, Span, divide, least_row

ROWS = st.lists(
    st.tuples(st.integers(0, 500), st.integers(1, 600), st.booleans()), min_size=1, max_size=6
)


@given(rows=ROWS, parts=st.integers(2, 5))
def test_each_token_is_computed_by_one_rank(rows: list[tuple[int, int, bool]], parts: int) -> None:
    starts, counts, whole = (list(column) for column in zip(*rows, strict=True))
    least = least_row(parts)
    found = divide(starts, counts, whole, parts)
    if found is None:
        assert all(count < least or one for _, count, one in rows)
        return
    assert all(spans for spans in found)
    seen = sorted((s.row, at) for spans in found for s in spans for at in _tokens(s))
    assert seen == [(r, starts[r] + i) for r in range(len(rows)) for i in range(counts[r])]
    for row, (start, count, one) in enumerate(rows):
        own = [[s for s in spans if s.row == row] for spans in found]
        assert own[0][-1].start + own[0][-1].count == start + count, "rank 0 has the last token"
        if count < least or one:
            assert not any(own[1:])
        else:
            assert all(s.count >= LEAST_SPAN for spans in own for s in spans)
    assert all(spans == sorted(spans, key=lambda s: (s.row, s.start)) for spans in found)


@given(start=st.integers(0, 10_000), each=st.integers(8, 100), parts=st.integers(2, 8))
def test_ranks_have_the_same_work_under_a_causal_mask(start: int, each: int, parts: int) -> None:
    found = divide([start], [2 * parts * each], [False], parts)
    assert found is not None
    work = [sum(at + 1 for span in spans for at in _tokens(span)) for spans in found]
    assert len(set(work)) == 1


def _tokens(span: Span) -> range:
    return range(span.start, span.start + span.count)
