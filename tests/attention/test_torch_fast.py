"""The fast path against the truth, over a grid of shapes."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch

from penstock.attention import torch_fast
from penstock.attention.torch_fast import TorchFast
from penstock.attention.torch_reference import TorchReference
from tests.attention.paged import Case, build

ROWS = {
    "decode": ((1, 1), (1, 16), (1, 33), (1, 17)),
    "equal-decode": ((1, 32), (1, 32)),
    "ragged-decode": ((1, 700), (1, 3), (1, 650), (1, 40), (1, 41), (1, 690)),
    "first-chunk": ((20, 20), (16, 16)),
    "later-chunk": ((20, 60), (2, 17)),
    "mixed": ((1, 90), (20, 20), (1, 5), (7, 50), (1, 64)),
    "long-chunk": ((600, 620), (1, 600)),
}
HEADS = ((4, 4, 8), (6, 2, 16), (9, 3, 64), (8, 1, 128))
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2}

GRID = [
    Case(rows, *heads, block_size=block_size, window=window, dtype=dtype)
    for rows, heads, block_size, window, dtype in itertools.product(
        ROWS.values(), HEADS, (16, 4), (0, 9, 64), TOLERANCE
    )
]


def check(case: Case, backend: TorchFast) -> None:
    paged = build(case)
    expected = paged.attend(TorchReference())
    paged.batch.groups[0].prepared = None
    tolerance = TOLERANCE[case.dtype]
    found = paged.attend(backend)
    assert found.dtype == case.dtype
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rows", ROWS)
def test_equals_the_truth(rows: str) -> None:
    backend = TorchFast()
    cases = [case for case in GRID if case.rows == ROWS[rows]]
    for case in cases[:: 1 + 3 * (rows == "long-chunk")]:
        check(case, backend)


@pytest.mark.slow
def test_equals_the_truth_on_the_whole_grid() -> None:
    backend = TorchFast()
    for seed, case in itertools.product(range(3), GRID):
        check(replace(case, seed=seed), backend)


@pytest.mark.parametrize("kv_dtype", [torch.int8, torch.bfloat16])
def test_a_cache_of_another_dtype(kv_dtype: torch.dtype) -> None:
    """Both restore the same keys and values."""
    for window, rows in itertools.product((0, 9), ("ragged-decode", "mixed")):
        check(Case(ROWS[rows], 6, 2, 16, window=window, kv_dtype=kv_dtype), TorchFast())


def test_softcap_falls_back_to_the_truth() -> None:
    check(Case(ROWS["mixed"], softcap=2.0), TorchFast())


@pytest.mark.parametrize("window", [0, 20])
@pytest.mark.parametrize("kv_dtype", [torch.float32, torch.int8])
def test_infinite_leftovers_of_a_blocks_last_owner_are_harmless(
    window: int, kv_dtype: torch.dtype
) -> None:
    """A request whose activations overflow must not poison those that get its blocks."""
    clean, stale = (
        build(Case(ROWS["mixed"], window=window, kv_dtype=kv_dtype)).attend(
            TorchFast(), stale=value
        )
        for value in (0.0, math.inf)
    )
    torch.testing.assert_close(clean, stale, rtol=0, atol=0)


def test_a_decode_call_stays_within_scratch_and_padding() -> None:
    block_bytes = 64 << 10
    rows = [torch_fast._Single(i, i, 0, 0, n) for i, n in enumerate([100, 8, 7, 1, 60, 99, 8, 2])]
    chunks = torch_fast._chunks(rows, block_bytes)
    assert sorted(s.row for chunk in chunks for s in chunk) == list(range(len(rows)))
    assert [len(chunk) for chunk in chunks] == [1, 1, 1, 4, 1]
    for chunk in chunks:
        widest = max(s.blocks for s in chunk)
        waste = sum(widest - s.blocks for s in chunk) * block_bytes
        assert waste <= torch_fast.WASTE_BYTES
        assert len(chunk) == 1 or widest * len(chunk) * block_bytes <= torch_fast.SCRATCH_BYTES


def test_what_is_prepared_serves_every_layer_of_the_step() -> None:
    paged, backend = build(Case(ROWS["mixed"])), TorchFast()
    first = paged.attend(backend)
    prepared = paged.batch.groups[0].prepared
    assert torch.equal(paged.attend(backend), first)
    assert paged.batch.groups[0].prepared is prepared
