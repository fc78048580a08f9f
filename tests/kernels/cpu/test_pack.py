"""Packed weights stand for the matrix that went in."""

from __future__ import annotations

import pytest
import torch

from penstock.kernels.cpu import pack
from penstock.kernels.cpu.pack import Format
from tests.kernels.cpu.weights import packed

SIZES = [(1, 1), (32, 64), (33, 65), (96, 576), (70, 100)]


@pytest.mark.parametrize("size", SIZES)
def test_floats_come_back(size: tuple[int, int]) -> None:
    weight = torch.randn(size)
    assert torch.equal(pack.unpack(pack.pack_float(weight)), weight)
    rounded = weight.bfloat16()
    assert torch.equal(pack.unpack(pack.pack_float(rounded)), rounded.float())


@pytest.mark.parametrize("size", SIZES)
def test_int8_comes_back(size: tuple[int, int]) -> None:
    q = torch.randint(-127, 128, size, dtype=torch.int8)
    scales = torch.rand(size[0])
    found = pack.pack_int8(q, scales)
    assert torch.equal(pack.unpack(found), q.float() * scales[:, None])


@pytest.mark.parametrize("size", SIZES)
def test_int4_comes_back(size: tuple[int, int]) -> None:
    q = torch.randint(0, 16, size, dtype=torch.uint8)
    scales = torch.rand(size[0], -(-size[1] // pack.GROUP)).half()
    expected = (q.float() - 8) * scales.float().repeat_interleave(pack.GROUP, 1)[:, : size[1]]
    assert torch.equal(pack.unpack(pack.pack_int4(q, scales)), expected)


def test_bytes_per_weight() -> None:
    weight = torch.randn(64, 128)
    bits = {form: packed(form, weight).num_bytes * 8 / weight.numel() for form in Format}
    assert bits == {
        Format.FLOAT32: 32,
        Format.BFLOAT16: 16,
        Format.INT8: 8 + 32 / 128,
        Format.INT4: 4 + 16 / 32,
    }


@pytest.mark.parametrize("n", [16, 20, 48])
def test_interleaved_rows_alternate_by_sixteen(n: int) -> None:
    gate, up = torch.arange(n)[:, None], 100 + torch.arange(n)[:, None]
    pairs = pack.interleave(gate, up).unflatten(0, (-1, 2, 16))
    assert torch.equal(pairs[:, 0].flatten()[:n], gate[:, 0])
    assert torch.equal(pairs[:, 1].flatten()[:n], up[:, 0])
    assert pairs.numel() == 2 * (-(-n // 16) * 16)
