from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import UnsupportedError
from penstock.parallel.ranks import ALONE, RankGroup, Shard, entire


@given(whole=st.integers(1, 5000), size=st.integers(1, 9), unit=st.sampled_from([1, 2, 32]))
def test_parts_follow_each_other_and_are_cut_at_units_only(
    whole: int, size: int, unit: int
) -> None:
    if -(-whole // unit) < size:
        with pytest.raises(UnsupportedError, match=rf"{whole}.*parts only"):
            RankGroup(0, size).split(whole, "it", unit)
        return
    parts = [RankGroup(rank, size).split(whole, "it", unit) for rank in range(size)]
    end = 0
    for part in parts:
        assert (part.first, part.whole) == (end, whole)
        assert part.count > 0
        assert part.first % unit == 0
        end += part.count
    assert end == whole
    units = [-(-part.count // unit) for part in parts]
    assert max(units) - min(units) <= 1


@given(kv=st.sampled_from([1, 2, 3, 4, 8]), each=st.integers(1, 4), size=st.integers(1, 16))
def test_each_query_head_finds_its_kv_head_on_its_rank(kv: int, each: int, size: int) -> None:
    heads = kv * each
    if heads % size or (kv % size and size % kv):
        with pytest.raises(UnsupportedError, match=rf"{heads} attention heads over {kv} KV") as e:
            RankGroup(0, size).split_heads(heads, kv)
        assert e.value.param == "tensor_parallel_size"
        return
    seen = []
    for rank in range(size):
        q, held = RankGroup(rank, size).split_heads(heads, kv)
        per_local = q.count // held.count
        for i in range(q.count):
            assert (q.first + i) // each == held.first + i // per_local
        seen += range(q.first, q.first + q.count)
    assert seen == list(range(heads))


def test_a_refusal_names_what_fits() -> None:
    with pytest.raises(UnsupportedError, match="Use one of 1, 3, 9"):
        RankGroup(0, 2).split_heads(9, 3)


def test_one_rank_has_all_and_talks_to_nobody() -> None:
    assert not ALONE.split(7, "it").partial
    assert entire(5) == Shard(0, 5, 5)
    assert Shard(1, 2, 4).times(3) == Shard(3, 6, 12)
    x = torch.ones(2, 3)
    ALONE.all_reduce(x)
    ALONE.broadcast(x)
    assert ALONE.gather_columns(x, 3) is x
    assert x.tolist() == [[1, 1, 1]] * 2
