from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from penstock.errors import CheckpointError
from penstock.quant.int4 import SEARCH, Int4, Int4Matrix, quantize_groups
from penstock.quant.int8 import Int8Matrix
from tests.quant import naive

CPU = torch.device("cpu")


def filled(weights: Tensor, dtype: torch.dtype = torch.float32) -> Int4Matrix:
    matrix = Int4().matrix(*weights.shape, dtype, CPU)
    matrix.place(0, len(weights)).copy_(weights)
    return matrix


def levels(matrix: Int4Matrix) -> np.ndarray:
    """q [rows, groups, 32], unpacked as the docstring says."""
    packed = matrix.values.numpy().astype(np.int64)
    return np.concatenate([packed & 15, packed >> 4], axis=2) - 8


def dequantized(matrix: Int4Matrix) -> np.ndarray:
    whole = levels(matrix) * matrix.scales.numpy().astype(np.float64)[:, :, None]
    return whole.reshape(len(whole), -1)


def test_weights_on_the_levels_come_back_exactly() -> None:
    q = torch.randint(-8, 8, (10, 32)).float()
    q[:, 5] = -8
    scale = 2.0 ** torch.arange(-9, 1)[:, None]
    scale[::2] *= -1
    matrix = filled(q * scale)
    assert np.array_equal(dequantized(matrix), (q * scale).numpy())


@pytest.mark.parametrize("draw", [torch.randn, torch.rand])
def test_the_search_beats_round_to_nearest(draw: object) -> None:
    assert callable(draw)
    weights = draw(64, 320) * torch.logspace(-3, 1, 64)[:, None]
    ours = (dequantized(filled(weights)) - weights.numpy()) ** 2
    theirs = (naive.q4_0(weights.numpy()) - weights.numpy()) ** 2
    assert (ours.sum(1) <= theirs.sum(1)).all()
    assert (ours.sum(1) / theirs.sum(1)).mean() < 0.93


def test_each_weight_is_on_its_nearest_level() -> None:
    weights = torch.randn(50, 32)
    q, scale = quantize_groups(weights)
    assert q.min() >= -8
    assert q.max() <= 7
    every = torch.arange(-8, 8)[:, None, None] * scale.float()
    best = (every - weights).abs().amin(0)
    found = (q * scale.float() - weights).abs()
    torch.testing.assert_close(found, best, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("size", [(1, 1, 1), (3, 48, 7), (2, 33, 2), (4, 160, 3)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_the_product_is_the_specification_bit_for_bit(
    size: tuple[int, int, int], with_bias: bool
) -> None:
    tokens, inputs, outputs = size
    x, weights = torch.randn(tokens, inputs), torch.randn(outputs, inputs)
    matrix = filled(weights)
    bias = torch.randn(outputs) if with_bias else None
    expected = naive.int4(
        x.numpy(), levels(matrix), matrix.scales.numpy(), None if bias is None else bias.numpy()
    )
    assert np.array_equal(matrix(x, bias).numpy(), expected)


def test_groups_of_very_different_scale_are_added_with_one_rounding() -> None:
    """A product and a total that float32 could not hold whole: fma, not multiply then add."""
    weights = torch.randn(6, 256) * torch.logspace(-5, 4, 8).repeat_interleave(32)
    x = torch.randn(4, 256)
    matrix = filled(weights)
    expected = naive.int4(x.numpy(), levels(matrix), matrix.scales.numpy())
    assert np.array_equal(matrix(x, None).numpy(), expected)


@pytest.mark.parametrize(("size", "parts"), [(8, 8), (48, 16), (96, 32)])
def test_inputs_with_outliers_are_rotated(size: int, parts: int) -> None:
    x, weights = torch.randn(2, size), torch.randn(3, size)
    matrix = Int4().matrix(3, size, torch.float32, CPU, outliers=True)
    matrix.place(0, 3).copy_(weights)
    plain = filled(torch.from_numpy(naive.rotate(weights.numpy(), parts) / np.float32(parts)))
    assert torch.equal(matrix.values, plain.values)
    assert torch.equal(matrix.scales, plain.scales)
    rotated = naive.rotate(x.numpy(), parts)
    expected = naive.int4(rotated, levels(matrix), matrix.scales.numpy())
    assert np.array_equal(matrix(x, None).numpy(), expected)


def test_results_in_bfloat16_are_rounded_once() -> None:
    x, weights = torch.randn(3, 64).bfloat16(), torch.randn(5, 64).bfloat16()
    matrix = filled(weights, torch.bfloat16)
    wide = naive.int4(x.float().numpy(), levels(matrix), matrix.scales.numpy())
    assert torch.equal(matrix(x, None), torch.from_numpy(wide).bfloat16())


@pytest.mark.parametrize("tokens", [2, 17, 64])
def test_a_row_does_not_depend_on_its_company(tokens: int) -> None:
    x, matrix = torch.randn(tokens, 576), filled(torch.randn(2000, 576))
    together = matrix(x, None)
    for row in range(0, tokens, 5):
        assert torch.equal(matrix(x[row : row + 1], None)[0], together[row])


def test_parts_are_quantized_apart_and_large_ones_in_pieces() -> None:
    first, second = torch.randn(3, 64), torch.randn(SEARCH // 64 + 5, 64)
    matrix = Int4().matrix(3 + len(second), 64, torch.float32, CPU)
    matrix.place(3, len(second)).copy_(second)
    matrix.place(0, 3).copy_(first)
    for part, weights in ((slice(0, 3), first), (slice(3, None), second)):
        alone = filled(weights)
        assert torch.equal(matrix.values[part], alone.values)
        assert torch.equal(matrix.scales[part], alone.scales)


def test_four_and_a_half_bits_a_weight_and_int8_tables() -> None:
    place = filled(torch.randn(10, 64)).place(0, 10)
    assert 8 * place.nbytes / 640 == 4.5
    assert place.shape == (10, 64)
    assert isinstance(Int4().table(3, 5, torch.float32, CPU), Int8Matrix)


def test_empty_and_tiny_groups_are_zeros() -> None:
    weights = torch.zeros(2, 64)
    weights[1] = 1e-12
    matrix = filled(weights)
    assert not dequantized(matrix).any()
    assert matrix(torch.randn(2, 64), None).tolist() == [[0, 0]] * 2


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -1e6])
def test_weights_without_a_scale_are_refused(bad: float) -> None:
    weights = torch.randn(3, 32)
    weights[2, 3] = bad
    with pytest.raises(CheckpointError, match="quantization none"):
        filled(weights)
