"""What prompts share is the same whether counted in segments, token ids or blocks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.workload.prefixes import EndlessCache, Segment, block_ids, cut, length, token_ids

SEGMENTS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 12)), min_size=1, max_size=4).map(
    lambda pairs: tuple(Segment(name, tokens) for name, tokens in pairs)
)


def common(a: list[int], b: list[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y),
                min(len(a), len(b)))  # fmt: skip


@given(st.lists(SEGMENTS, min_size=1, max_size=6))
def test_the_cache_finds_what_the_token_ids_share(prompts: list[tuple[Segment, ...]]) -> None:
    """Token ids are the truth. A prompt that goes on inside a segment where another stopped and
    went on with a different one shares no more than the ids say, and never more than was seen."""
    cache = EndlessCache()
    seen: list[list[int]] = []
    for prompt in prompts:
        ids = token_ids(prompt, 2**31)
        truth = max((common(ids, other) for other in seen), default=0)
        assert cache.matched(prompt) <= truth
        cache.add(prompt)
        assert cache.matched(prompt) == length(prompt)
        seen.append(ids)


@given(SEGMENTS, SEGMENTS, st.integers(1, 9))
def test_blocks_are_equal_as_far_as_tokens_are(
    a: tuple[Segment, ...], b: tuple[Segment, ...], size: int
) -> None:
    shared = common(token_ids(a, 2**31), token_ids(b, 2**31))
    blocks = common(block_ids(a, size), block_ids(b, size))
    assert blocks * size <= shared
    assert len(block_ids(a, size)) == length(a) // size
    assert len(block_ids(a, size, partial=True)) == -(-length(a) // size)
    assert block_ids(cut(a, size * 2), size) == block_ids(a, size)[:2]


def test_a_cut_prompt_shares_what_is_left() -> None:
    prompt = (Segment(1, 10), Segment(2, 5))
    assert cut(prompt, 12) == (Segment(1, 10), Segment(2, 2))
    assert cut(prompt, 10) == (Segment(1, 10),)
    cache = EndlessCache()
    cache.add(prompt)
    assert cache.matched((*cut(prompt, 12), Segment(3, 9))) == 12
    assert cache.matched((Segment(1, 4), Segment(3, 9))) == 4
    assert cache.matched((Segment(9, 4),)) == 0


def test_token_ids_stay_in_their_range() -> None:
    ids = token_ids((Segment(5, 2000),), 300, first=100)
    assert min(ids) >= 100
    assert max(ids) < 300
    assert len(set(ids)) > 190
