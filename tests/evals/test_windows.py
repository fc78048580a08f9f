from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.evals.windows import Window, cut


def test_without_overlap_each_token_is_computed_once() -> None:
    assert list(cut([10, 11, 12, 13, 14], 3, 3)) == [
        Window([10, 11, 12], 1),
        Window([13, 14], 1),
    ]


def test_with_a_prefix_every_token_is_scored() -> None:
    assert list(cut([10, 11, 12, 13], 3, 3, [1])) == [
        Window([1, 10, 11], 1),
        Window([1, 12, 13], 1),
    ]


def test_overlapping_windows_score_their_last_tokens() -> None:
    assert list(cut(range(10, 17), 4, 2)) == [
        Window([10, 11, 12, 13], 1),
        Window([12, 13, 14, 15], 2),
        Window([14, 15, 16], 2),
    ]


def test_a_lone_last_token_has_nothing_before_it() -> None:
    assert list(cut([10, 11, 12], 2, 2)) == [Window([10, 11], 1)]
    assert list(cut([10], 2, 2)) == []
    assert list(cut([], 2, 2, [1])) == []


@given(st.integers(0, 60), st.integers(2, 20), st.integers(1, 25), st.booleans())
def test_tokens_are_scored_at_most_once_with_as_much_context_as_promised(
    count: int, context: int, stride: int, prefixed: bool
) -> None:
    prefix = [-1] if prefixed else []
    scored = []
    for window in cut(range(count), context, stride, prefix):
        assert len(window.ids) <= context
        assert window.ids[: len(prefix)] == prefix
        body = window.ids[len(prefix) :]
        assert body == list(range(body[0], body[0] + len(body)))
        new = window.ids[window.first :]
        scored += new
        if stride < context and body[0] > 0:
            assert window.first >= min(context - stride, context - 1)
    assert scored == sorted(set(scored))
    missing = set(range(count)) - set(scored)
    assert len(missing) <= (0 if prefixed else -(-count // min(stride, context)))
    if stride < context:
        assert missing <= {0} - ({0} if prefixed else set())
