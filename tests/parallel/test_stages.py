from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import UnsupportedError
from penstock.parallel.stages import WHOLE, Stage, cut


def dearest(costs: list[int], head: int, ends: list[int]) -> int:
    runs = [sum(costs[a:b]) for a, b in zip([0, *ends], ends, strict=False)]
    return max([*runs[:-1], runs[-1] + head])


@given(
    costs=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    head=st.integers(0, 30),
    count=st.integers(1, 8),
)
def test_no_other_cut_is_better(costs: list[int], head: int, count: int) -> None:
    if count > len(costs):
        with pytest.raises(UnsupportedError, match=f"has {len(costs)} layers"):
            Stage(0, count).layers(costs, head)
        return
    ends = cut(costs, head, count)
    assert ends == sorted(set(ends))
    assert ends[-1] == len(costs)
    every = ([*inner, len(costs)] for inner in combinations(range(1, len(costs)), count - 1))
    assert dearest(costs, head, ends) == min(dearest(costs, head, other) for other in every)
    held = [i for index in range(count) for i in Stage(index, count).layers(costs, head)]
    assert held == list(range(len(costs)))


def test_a_large_head_counts_as_layers() -> None:
    assert cut([1] * 8, 0, 2) == [4, 8]
    assert cut([1] * 8, 4, 2) == [6, 8]
    assert WHOLE.layers([1, 1], 5) == range(2)
    assert WHOLE.first
    assert WHOLE.last
