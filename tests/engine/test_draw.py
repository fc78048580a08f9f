"""The draw against an independent oracle: equal ids, always; and the textbook distribution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine import draw


def filters(
    rows: int, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> draw.Filters:
    return draw.Filters(
        torch.full((rows,), 1 / temperature, dtype=torch.float64),
        torch.full((rows,), top_k, dtype=torch.int64),
        torch.full((rows,), top_p, dtype=torch.float64),
        torch.full((rows,), min_p, dtype=torch.float64),
    )


weights = st.lists(
    st.one_of(st.integers(0, 5), st.integers(0, 2**40), st.just(2**40)), min_size=1, max_size=60
)


@given(st.lists(weights, min_size=1, max_size=4), st.floats(0.001, 1))
@settings(deadline=None, max_examples=200)
def test_crossing_by_bucket_equals_by_sort(rows: list[list[int]], part: float) -> None:
    width = max(len(row) for row in rows)
    table = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    table[:, 0] += 1
    keys = (table << 22) + (draw.MAX_VOCAB - 1 - torch.arange(width))
    need = (table.sum(1).double() * part).ceil().long().clamp(min=1)
    assert torch.equal(draw.crossing_by_bucket(keys, need), draw.crossing_by_sort(keys, need))


@given(st.lists(st.sampled_from([-1.5, -0.0, 0.0, 1e-38, 2.0, 2.5]), min_size=1, max_size=30))
@settings(deadline=None)
def test_top_ids_breaks_ties_by_lower_id(values: list[float]) -> None:
    table = torch.tensor([values], dtype=torch.float32)
    expected = sorted(range(len(values)), key=lambda i: (-values[i], i))
    ids, found = draw.top_ids(table, len(values))
    assert ids.tolist() == [expected]
    assert torch.equal(found[0], table[0, expected])


@pytest.mark.parametrize("u", [0.0, 0.3, 1 - 2**-53])
def test_candidates_that_cannot_be_kept_make_no_difference(u: float) -> None:
    """`draw_wide` weighs few ids, `draw_top_k` with k = V - 1 all but the last: same answers."""
    logits = torch.randn(6, 6000, generator=torch.Generator().manual_seed(1))
    logits[:, -1] = -200
    maxima = logits.amax(1)
    uniform = torch.full((6,), u, dtype=torch.float64)
    for top_p, min_p in [(0.5, 0.0), (0.99, 0.0), (1.0, 0.02), (0.999, 1e-4)]:
        wide = draw.draw_wide(logits, maxima, filters(6, 1.0, 0, top_p, min_p), uniform)
        among = filters(6, 1.0, 5999, top_p, min_p)
        assert torch.equal(wide, draw.draw_top_k(logits, maxima, among, uniform, 5999))


def test_the_first_and_the_last_of_the_kept_can_be_drawn() -> None:
    logits = torch.tensor([[-100.0, 0.0, -100.0, 0.0, -100.0]])
    for u, expected in [(0.0, 1), (0.4999, 1), (0.5, 3), (1 - 2**-53, 3)]:
        uniform = torch.tensor([u], dtype=torch.float64)
        assert draw.draw_all(logits, logits.amax(1), filters(1), uniform).tolist() == [expected]


def test_greatest_temperature_and_smallest_spread() -> None:
    logits = torch.linspace(-3e38, 3e38, 5)[None]
    uniform = torch.tensor([0.999], dtype=torch.float64)
    hot = filters(1, temperature=100.0)
    assert draw.draw_all(logits, logits.amax(1), hot, uniform).tolist() == [4]
    flat = torch.zeros(1, 8)
    assert draw.draw_all(flat, flat.amax(1), hot, uniform).tolist() == [7]


def test_weights_cover_a_large_vocabulary_without_overflow() -> None:
    """A flat row of the largest vocabulary: the mass is 2^62 and the last id is reachable."""
    logits = torch.zeros(1, draw.MAX_VOCAB)
    uniform = torch.tensor([1 - 2**-53], dtype=torch.float64)
    assert draw.draw_all(logits, logits.amax(1), filters(1), uniform).item() == draw.MAX_VOCAB - 1
    assert np.log2(float(2**40 * draw.MAX_VOCAB)) == 62
