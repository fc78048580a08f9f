"""The truth against the textbook formula, position by position, without blocks or masks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from penstock.attention.base import vector_bytes
from penstock.attention.torch_reference import TorchReference, restored, stored
from penstock.kernels.symmetric import quantize_rows
from tests.attention.paged import CPU, Case, Paged, build

MIXED = ((1, 1), (5, 5), (1, 40), (7, 23))
CASES = [
    Case(MIXED),
    Case(MIXED, num_heads=3, num_kv_heads=1, block_size=4, window=5),
    Case(MIXED, num_heads=2, num_kv_heads=2, block_size=1, softcap=3.0),
    Case(MIXED, num_heads=8, head_dim=6, block_size=32, window=1, softcap=0.5),
]


def textbook(paged: Paged) -> Tensor:
    """softmax(q k / sqrt(d)) v for each query and head alone, in float64."""
    case, out, token = paged.case, [], 0
    group = case.num_heads // case.num_kv_heads
    for (queries, keys), (k, v) in zip(case.rows, paged.kv, strict=True):
        for position in range(keys - queries, keys):
            first = max(0, position - case.window + 1) if case.window else 0
            for head in range(case.num_heads):
                seen = k[first : position + 1, head // group].double()
                scores = seen @ paged.q[token, head].double() / math.sqrt(case.head_dim)
                if case.softcap:
                    scores = case.softcap * torch.tanh(scores / case.softcap)
                weights = torch.exp(scores) / torch.exp(scores).sum()
                out.append(weights @ v[first : position + 1, head // group].double())
            token += 1
    return torch.stack(out).view(paged.q.shape).float()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_textbook(case: Case) -> None:
    paged = build(case)
    torch.testing.assert_close(paged.attend(TorchReference()), textbook(paged))


def test_does_not_read_what_others_left_in_a_block() -> None:
    paged = build(Case(MIXED, window=6))
    assert paged.attend(TorchReference(), stale=math.nan).isfinite().all()


def test_cache_is_zeroed_and_of_the_promised_size() -> None:
    cache = TorchReference().allocate(5, 16, 3, 8, torch.bfloat16, CPU)
    assert cache.shape[0] == 5
    assert cache.numel() == 2 * 5 * 16 * 3 * 8
    assert not cache.any()


@pytest.mark.parametrize("head_dim", [6, 32])
def test_an_int8_cache_has_the_promised_size_and_stays_close(head_dim: int) -> None:
    cache = TorchReference().allocate(5, 16, 3, head_dim, torch.int8, CPU)
    assert cache.nbytes == 2 * 5 * 16 * 3 * vector_bytes(head_dim, torch.int8)
    case = Case(MIXED, head_dim=head_dim, window=6, kv_dtype=torch.int8)
    found = build(case).attend(TorchReference(), stale=math.nan)
    assert 0 < (found - textbook(build(case))).abs().max() < 0.05


def test_what_is_stored_in_int8_is_the_quantization_of_each_head() -> None:
    x = torch.randn(4, 3, 8)
    held = stored(x, torch.int8)
    assert held.shape == (4, 3, 12)
    q, scale = quantize_rows(x)
    assert torch.equal(restored(held, torch.float32), q * scale)
