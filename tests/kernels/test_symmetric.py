from __future__ import annotations

import numpy as np
import pytest
import torch

from penstock.kernels.symmetric import quantize_rows
from tests.quant import naive


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_are_quantized_as_specified(dtype: torch.dtype) -> None:
    x = (torch.randn(40, 77) * torch.logspace(-6, 3, 40)[:, None]).to(dtype)
    x[3] = 0
    q, scales = quantize_rows(x)
    expected, expected_scales = naive.quantize_rows(x.float().numpy())
    assert q.numpy().astype(np.int64).tolist() == expected.tolist()
    assert scales[:, 0].numpy().tolist() == expected_scales.tolist()
    assert q.abs().amax(1).tolist() == [0 if row == 3 else 127 for row in range(40)]


def test_halves_go_to_the_even_neighbour() -> None:
    q, _ = quantize_rows(torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5]]))
    assert q.tolist() == [[127, 0, 2, 2, 0, -2]]


def test_a_row_that_is_not_finite_has_no_finite_result() -> None:
    x = torch.ones(4, 3)
    x[1, 2], x[2, 0] = torch.nan, -torch.inf
    q, scales = quantize_rows(x)
    assert (q * scales).isfinite().all(1).tolist() == [True, False, False, True]


def test_a_row_too_small_to_invert_counts_as_zeros() -> None:
    q, scales = quantize_rows(torch.full((1, 4), 1e-40))
    assert q.tolist() == [[0] * 4]
    assert 0 < scales.item() < 1e-40


def test_a_row_is_the_last_dimension() -> None:
    x = torch.randn(3, 2, 5)
    q, scales = quantize_rows(x)
    flat, flat_scales = quantize_rows(x.view(6, 5))
    assert torch.equal(q.view(6, 5), flat)
    assert torch.equal(scales.view(6, 1), flat_scales)
