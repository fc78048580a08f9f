"""The kernels quantize exactly as the formats' own torch code does."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from penstock.errors import CheckpointError
from penstock.kernels import cpu
from penstock.kernels.cpu import quantize
from penstock.kernels.rotation import num_parts
from penstock.quant.int4 import Int4
from penstock.quant.int8 import Int8

pytestmark = pytest.mark.skipif(cpu.available() is not None, reason=str(cpu.available()))

CPU = torch.device("cpu")
FORMATS = {"int8": Int8(), "int4": Int4()}


def both(
    form: str, w: Tensor, monkeypatch: pytest.MonkeyPatch, outliers: bool = False
) -> tuple[Tensor, Tensor]:
    """Values and scales by the kernels, equal to those by torch."""
    found = []
    for native in (True, False):
        monkeypatch.setattr(quantize, "runs", lambda values, native=native: native)
        matrix = FORMATS[form].matrix(*w.shape, torch.float32, CPU, outliers)
        matrix.values.fill_(77)
        matrix.scales.fill_(77)
        matrix.place(0, len(w)).copy_(w)
        found.append((matrix.values, matrix.scales))
    (values, scales), (twin_values, twin_scales) = found
    assert torch.equal(values, twin_values)
    assert torch.equal(scales, twin_scales)
    return values, scales


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(1, 1), (3, 33), (5, 96), (40, 1024), (7, 576)])
def test_bits_are_those_of_the_twin(
    form: str, dtype: torch.dtype, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(shape[1])
    w = torch.randn(shape, generator=generator) * 10.0 ** torch.randn(shape, generator=generator)
    for outliers in (False, True):
        both(form, w.to(dtype), monkeypatch, outliers)


@pytest.mark.parametrize("form", FORMATS)
def test_rows_with_gaps_and_halves_of_levels(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank's part of the inputs; and ties, which are rounded to even."""
    w = (torch.randint(-14, 15, (9, 200), generator=torch.Generator().manual_seed(1)) / 2).float()
    w[:, 3] = 127.0
    both(form, w[:, 1:161], monkeypatch)
    both(form, w.t(), monkeypatch)
    assert num_parts(160) > 1


@pytest.mark.parametrize("form", FORMATS)
def test_zeros_and_what_underflows(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    w = torch.zeros(6, 64)
    w[1, 5], w[2] = 3.0, 1e-9
    w[3], w[4], w[5, 40] = 1e-42, 65000.0, -1e-38
    values, scales = both(form, w, monkeypatch)
    assert not scales[0].any()
    assert (values[0] == values[0, :1]).all()


@pytest.mark.parametrize("form", FORMATS)
def test_threads_change_nothing(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    w, before = torch.randn(11, 256), torch.get_num_threads()
    expected = both(form, w, monkeypatch)
    try:
        torch.set_num_threads(3)
        found = both(form, w, monkeypatch)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 70000.0])
def test_weights_that_no_scale_can_stand_for_are_refused(form: str, bad: float) -> None:
    w = torch.randn(4, 64)
    w[2, 31] = bad
    matrix = FORMATS[form].matrix(4, 64, torch.float32, CPU)
    with pytest.raises(CheckpointError, match="cannot be quantized"):
        matrix.place(0, 4).copy_(w)
