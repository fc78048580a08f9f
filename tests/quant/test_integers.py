from __future__ import annotations

import numpy as np
import pytest
import torch

from penstock.quant.integers import (
    MOST_TERMS,
    float_product,
    int8_matmul_is_exact,
    product,
)

SIZES = [(1, 1, 1), (1, 48, 7), (3, 33, 1), (17, 1025, 5), (64, 2500, 3)]


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
