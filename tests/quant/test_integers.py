from __future__ import annotations

import numpy as np
import pytest
import torch

from penstock.quant.integers import (
    MOST_TERMS,
    float_product,
    int8_matmul_is_exact,
    product,
    quantize_rows,
)
from tests.quant import naive

SIZES = [(1, 1, 1), (1, 48, 7), (3, 33, 1), (17, 1025, 5), (64, 2500, 3)]


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
    found = product(q, torch.ones(2, 3, dtype=torch.int8)) * scales
    assert found.isfinite().all(1).tolist() == [True, False, False, True]


def test_a_row_too_small_to_invert_counts_as_zeros() -> None:
    q, scales = quantize_rows(torch.full((1, 4), 1e-40))
    assert q.tolist() == [[0] * 4]
    assert 0 < scales.item() < 1e-40


@pytest.mark.parametrize(("m", "k", "n"), SIZES)
@pytest.mark.parametrize("multiply", [product, float_product])
def test_products_are_exact(multiply: object, m: int, k: int, n: int) -> None:
    assert callable(multiply)
    a = torch.randint(-127, 128, (m, k), dtype=torch.int8)
    b = torch.randint(-128, 128, (n, k), dtype=torch.int8)
    expected = a.numpy().astype(np.int64) @ b.numpy().astype(np.int64).T
    found = multiply(a, b)
    assert found.dtype == torch.int32
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("multiply", [product, float_product])
def test_the_greatest_sums_are_exact(multiply: object) -> None:
    assert callable(multiply)
    a = torch.full((2, 5000), 127, dtype=torch.int8)
    b = torch.stack([torch.full((5000,), sign * 127, dtype=torch.int8) for sign in (1, -1)])
    assert multiply(a, b).tolist() == [[5000 * 127**2, -5000 * 127**2]] * 2


def test_the_longest_row_fits_32_bits() -> None:
    assert MOST_TERMS * 127 * 128 < 2**31 < (MOST_TERMS + 2) * 128 * 128


def test_the_trial_of_the_instruction_has_an_answer() -> None:
    """Either way `product` is exact; where torch's own is not, the trial must have said so."""
    a = torch.full((5, 640), 127, dtype=torch.int8)
    own = torch._int_mm(a, a.t())
    assert torch.equal(own, float_product(a, a)) or not int8_matmul_is_exact()
