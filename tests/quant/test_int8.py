from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from penstock.errors import CheckpointError, UnsupportedError
from penstock.quant.int8 import BLOCK, Int8, Int8Matrix
from tests.quant import naive

CPU = torch.device("cpu")


def filled(weights: Tensor, dtype: torch.dtype = torch.float32) -> Int8Matrix:
    matrix = Int8().matrix(*weights.shape, dtype, CPU)
    matrix.place(0, len(weights)).copy_(weights)
    return matrix


def test_each_weight_is_within_half_a_step() -> None:
    weights = torch.randn(30, 65) * torch.logspace(-4, 2, 30)[:, None]
    matrix = filled(weights)
    found = matrix.values.double() * matrix.scales.double()[:, None]
    step = matrix.scales.double()[:, None]
    assert ((found - weights.double()).abs() <= 0.5001 * step).all()
    assert matrix.values.abs().amax(1).tolist() == [127] * 30


@pytest.mark.parametrize("size", [(1, 1, 1), (3, 48, 7), (5, 33, 2), (2, 1300, 4)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_the_product_is_the_specification_bit_for_bit(
    size: tuple[int, int, int], with_bias: bool
) -> None:
    tokens, inputs, outputs = size
    x, weights = torch.randn(tokens, inputs), torch.randn(outputs, inputs)
    bias = torch.randn(outputs) if with_bias else None
    expected = naive.int8(x.numpy(), weights.numpy(), None if bias is None else bias.numpy())
    assert np.array_equal(filled(weights)(x, bias).numpy(), expected)


@pytest.mark.parametrize(("size", "parts"), [(8, 8), (48, 16), (1344, 32), (33, 1)])
def test_inputs_with_outliers_are_rotated(size: int, parts: int) -> None:
    x, weights = torch.randn(3, size), torch.randn(5, size)
    matrix = Int8().matrix(5, size, torch.float32, CPU, outliers=True)
    matrix.place(0, 5).copy_(weights)
    expected = naive.int8(
        naive.rotate(x.numpy(), parts), naive.rotate(weights.numpy(), parts) / np.float32(parts)
    )
    assert np.array_equal(matrix(x, None).numpy(), expected)


def test_rotation_saves_what_an_outlier_would_cost() -> None:
    x, weights = torch.randn(20, 256), torch.randn(30, 256)
    x[:, 77] *= 50
    exact = x.double() @ weights.double().t()
    errors = []
    for outliers in (False, True):
        matrix = Int8().matrix(30, 256, torch.float32, CPU, outliers)
        matrix.place(0, 30).copy_(weights)
        errors.append(float((matrix(x, None) - exact).square().mean()))
    assert errors[1] < errors[0] / 5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_result_is_rounded_once_to_the_activations_dtype(dtype: torch.dtype) -> None:
    x, weights, bias = torch.randn(4, 40).to(dtype), torch.randn(6, 40).to(dtype), torch.ones(6)
    matrix = filled(weights, dtype)
    wide = naive.int8(x.float().numpy(), weights.float().numpy(), bias.numpy())
    assert torch.equal(matrix(x, bias.to(dtype)), torch.from_numpy(wide).to(dtype))
    logits = naive.int8(x.float().numpy(), weights.float().numpy())
    assert np.array_equal(matrix.logits(x).numpy(), logits)


@pytest.mark.parametrize("tokens", [2, 17, 64])
def test_a_row_does_not_depend_on_its_company(tokens: int) -> None:
    x, matrix = torch.randn(tokens, 576), filled(torch.randn(300, 576))
    together = matrix(x, None)
    for row in range(tokens):
        assert torch.equal(matrix(x[row : row + 1], None)[0], together[row])


def test_parts_are_quantized_apart_and_large_ones_in_pieces() -> None:
    first, second = torch.randn(3, 20), torch.randn(BLOCK // 20 + 5, 20)
    matrix = Int8().matrix(3 + len(second), 20, torch.float32, CPU)
    matrix.place(3, len(second)).copy_(second)
    matrix.place(0, 3).copy_(first.bfloat16())
    for part, weights in ((slice(0, 3), first.bfloat16().float()), (slice(3, None), second)):
        q, scales = naive.quantize_weights(weights.numpy())
        assert np.array_equal(matrix.values[part].numpy(), q)
        assert np.array_equal(matrix.scales[part].numpy(), scales)


def test_rows_are_looked_up_in_the_same_storage() -> None:
    weights = torch.randn(9, 12)
    table = Int8().table(9, 12, torch.bfloat16, CPU)
    table.place(0, 9).copy_(weights)
    ids = torch.tensor([8, 0, 8])
    assert table.parts == 4
    stored = (table.values.float() * table.scales[:, None]).numpy()
    expected = torch.from_numpy(naive.rotate(stored, 4)).bfloat16()[ids]
    assert torch.equal(table.rows(ids), expected)
    torch.testing.assert_close(table.rows(ids).float(), weights[ids], rtol=0.01, atol=0.05)
    hidden = torch.randn(3, 12)
    whole = naive.int8(naive.rotate(hidden.numpy(), 4), naive.rotate(weights.numpy(), 4) / 4)
    assert np.array_equal(table.logits(hidden).numpy(), whole)
    assert table.place(0, 9).nbytes == 9 * 12 + 9 * 4
    assert table.place(0, 9).shape == (9, 12)


def test_rows_of_zeros_stay_zeros() -> None:
    weights = torch.randn(3, 8)
    weights[1] = 0
    assert filled(weights)(torch.randn(2, 8), None)[:, 1].tolist() == [0, 0]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -1e6])
def test_weights_without_a_scale_are_refused(bad: float) -> None:
    weights = torch.randn(3, 8)
    weights[2, 3] = bad
    with pytest.raises(CheckpointError, match="quantization none"):
        filled(weights)


def test_rows_whose_sums_might_not_be_exact_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="quantization none"):
        Int8().matrix(1, 140_000, torch.float32, torch.device("meta"))
