from __future__ import annotations

import numpy as np
import pytest
import torch

from penstock.kernels.rotation import num_parts, rotate
from tests.quant import naive


@pytest.mark.parametrize(
    ("size", "parts"), [(1, 1), (33, 1), (48, 16), (576, 32), (1536, 32), (80, 16), (6, 2)]
)
def test_parts_divide_the_size(size: int, parts: int) -> None:
    assert num_parts(size) == parts


@pytest.mark.parametrize(("size", "parts"), [(7, 1), (6, 2), (48, 16), (96, 32)])
def test_butterflies_in_the_order_of_the_specification(size: int, parts: int) -> None:
    x = torch.randn(5, size) * torch.logspace(-3, 3, 5)[:, None]
    assert np.array_equal(rotate(x, parts).numpy(), naive.rotate(x.numpy(), parts))


def test_it_is_the_hadamard_matrix_of_runs() -> None:
    x = torch.randint(-9, 10, (4, 24))
    signs = torch.tensor([[1 - 2 * ((i & j).bit_count() & 1) for j in range(8)] for i in range(8)])
    expected = torch.einsum("ij,tjr->tir", signs, x.view(4, 8, 3)).reshape(4, 24)
    assert rotate(x.bfloat16(), 8).tolist() == expected.tolist()


def test_twice_is_a_multiple() -> None:
    x = torch.randint(-9, 10, (3, 64)).float()
    assert torch.equal(rotate(rotate(x, 32), 32), 32 * x)


def test_no_rows() -> None:
    assert rotate(torch.zeros(0, 64), 32).shape == (0, 64)
