"""Each kernel, on each instruction set of this machine, against its twin in plain torch."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from penstock.kernels import cpu
from penstock.kernels.cpu import pack, program, twin
from penstock.kernels.cpu.ops import GATED, Batch, Epilogue, GroupTables, KVCache, Rope
from penstock.kernels.cpu.pack import Format
from penstock.kernels.cpu.program import Program
from tests.kernels.cpu.weights import batch, packed

pytestmark = pytest.mark.skipif(cpu.available() is not None, reason=str(cpu.available()))

ISAS = pytest.mark.parametrize("isa", cpu.isas())
FORMATS = pytest.mark.parametrize("form", Format)
EXACT = (Format.INT8, Format.INT4)


def recorded(isa: str, tokens: int, threads: int = 2) -> Program:
    return Program(program.pool(threads), tokens, isa=isa)


@ISAS
@FORMATS
@pytest.mark.parametrize(("n", "k"), [(1, 1), (96, 64), (100, 70), (33, 576), (65, 200)])
def test_linear(form: Format, n: int, k: int, isa: str) -> None:
    weight = packed(form, torch.randn(n, k), torch.randn(n))
    for rows in (1, 2, 5, 12, 17, 40):
        x, found, expected = torch.randn(rows, k), torch.empty(rows, n), torch.empty(rows, n)
        op = recorded(isa, rows)
        op.linear(weight, x, found)
        op.run(batch(rows))
        twin.linear(weight, x, expected)
        if form in EXACT:
            assert torch.equal(found, expected)
        else:
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@ISAS
@FORMATS
@pytest.mark.parametrize("epilogue", Epilogue)
@pytest.mark.parametrize("x_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("out_dtype", [torch.float32, torch.bfloat16])
def test_linear_with_norm_and_epilogue(
    form: Format, epilogue: Epilogue, x_dtype: torch.dtype, out_dtype: torch.dtype, isa: str
) -> None:
    n, k, rows = 84, 96, 7
    matrix = torch.randn(n, k) * k**-0.5
    if epilogue in GATED.values():
        matrix = pack.interleave(matrix, torch.randn(n, k) * k**-0.5)
        n = matrix.shape[0] // 2
    weight = packed(form, matrix, torch.randn(matrix.shape[0]))
    x, norm = torch.randn(rows, k).to(x_dtype), torch.rand(k) + 0.5
    found = torch.randn(rows, n).to(out_dtype)
    expected = found.clone()
    op = recorded(isa, rows)
    cap = {"scale": 0.7, "softcap": 1.5} if epilogue == Epilogue.STORE else {}
    op.linear(weight, x, found, norm, 1e-5, epilogue, **cap)
    op.run(batch(rows))
    twin.linear(weight, x, expected, norm, 1e-5, epilogue, **cap)
    # The two norms may round an activation to neighbours, in int8 a step of 1 / 127 of the row's
    # greatest.
    tolerance = 0.05 if form in EXACT or out_dtype == torch.bfloat16 else 0.02
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@ISAS
def test_linear_of_wanted_rows(isa: str) -> None:
    weight, x = packed(Format.INT8, torch.randn(40, 64)), torch.randn(9, 64)
    wanted = torch.tensor([8, 0, 3])
    found, expected = torch.empty(3, 40), torch.empty(3, 40)
    op = Program(program.pool(2), 9, 3, isa)
    op.linear(weight, x, found, wanted=True)
    op.run(batch(9, wanted))
    twin.linear(weight, x[wanted], expected)
    assert torch.equal(found, expected)


@ISAS
@FORMATS
def test_linear_lets_a_nan_through(form: Format, isa: str) -> None:
    """A quantized row must not turn a NaN into a number."""
    weight, x = packed(form, torch.randn(8, 64)), torch.randn(3, 64)
    x[1, 20] = math.nan
    out = torch.empty(3, 8)
    op = recorded(isa, 3)
    op.linear(weight, x, out)
    op.run(batch(3))
    assert out.isnan().any(1).tolist() == [False, True, False]


@ISAS
@pytest.mark.parametrize("size", [1, 16, 100, 576])
def test_norm(size: int, isa: str) -> None:
    x, weight = torch.randn(5, size), torch.rand(size)
    found, expected = torch.empty(5, size), torch.empty(5, size)
    op = recorded(isa, 5)
    op.norm(x, weight, 1e-6, found)
    op.run(batch(5))
    twin.norm(x, weight, 1e-6, expected)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@ISAS
def test_norm_added_to_a_sum_and_in_place(isa: str) -> None:
    wide, weight = torch.randn(5, 60), torch.rand(24)
    x, found, expected = wide[:, 8:32], torch.randn(5, 24), torch.empty(5, 24)
    twin.norm(x, weight, 1e-6, expected)
    summed = found + expected
    op = recorded(isa, 5)
    op.norm(x, weight, 1e-6, found, add=True)
    op.norm(x, weight, 1e-6, x)
    op.run(batch(5))
    torch.testing.assert_close(found, summed, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(x, expected, rtol=1e-5, atol=1e-6)


@ISAS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_embed(dtype: torch.dtype, isa: str) -> None:
    table, scales = torch.randn(50, 72), None
    if dtype == torch.int8:
        table, scale = twin.quantize(table)
        scales = scale[:, 0].contiguous()
    table = table.to(dtype)
    ids = torch.tensor([49, 0, 7, 7])
    found, expected = torch.empty(4, 72), torch.empty(4, 72)
    op = recorded(isa, 4)
    op.embed(table, found, scales, 1.5)
    given = batch(4)
    given.ids.copy_(ids)
    op.run(given)
    twin.embed(table, ids, expected, scales, 1.5)
    assert torch.equal(found, expected)


def tables(rotary_dim: int) -> tuple[Tensor, Tensor]:
    frequencies = 10000.0 ** (-torch.arange(rotary_dim // 2) / (rotary_dim // 2))
    angles = torch.arange(200)[:, None] * frequencies
    return angles.cos(), angles.sin()


@ISAS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_rope_and_write(dtype: torch.dtype, isa: str) -> None:
    for dim, rotary_dim, norms in ((64, 64, True), (48, 24, False), (128, 0, True)):
        heads, kv_heads, tokens = 3, 2, 11
        cos, sin = tables(rotary_dim) if rotary_dim else (None, None)
        weights = (torch.rand(dim), torch.rand(dim)) if norms else (None, None)
        rope = Rope(cos, sin, *weights, 1e-5)
        qkv = torch.randn(tokens, (heads + 2 * kv_heads) * dim)
        slots = torch.randperm(64)[:tokens]
        given = batch(tokens, groups=(GroupTables(torch.empty(0, 0, dtype=torch.int32), slots),))
        given.positions.copy_(torch.randint(0, 200, (tokens,)))
        caches = [KVCache.allocate(4, dtype, 16, kv_heads, dim) for _ in range(2)]
        q = [torch.empty(tokens, heads * dim) for _ in range(2)]
        op = recorded(isa, tokens)
        op.rope(qkv, q[0], caches[0], rope)
        op.run(given)
        twin.rope(qkv, q[1], caches[1], rope, given)
        torch.testing.assert_close(q[0], q[1], rtol=1e-5, atol=1e-5)
        # A step of the cache's rounding apart where the two norms differ in the last bit.
        tolerance = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.int8: 0.05}[dtype]
        for found, expected in zip(twin.read(caches[0]), twin.read(caches[1]), strict=True):
            torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@ISAS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_attention(dtype: torch.dtype, isa: str) -> None:
    """Over the same cache. bfloat16 rounds queries and probabilities; int8 keeps 16 bits of the
    queries."""
    rows = ((1, 5), (7, 7), (1, 700), (50, 130))
    for (heads, kv_heads, dim), window, softcap in itertools.product(
        ((3, 1, 64), (4, 4, 16), (8, 2, 128)), (0, 70), (0.0, 5.0)
    ):
        cache = KVCache.allocate(80, dtype, 16, kv_heads, dim)
        k, v = torch.randn(2, 80 * 16, kv_heads, dim)
        twin.write(cache, k, v, torch.arange(80 * 16))
        starts = torch.tensor([0, *(q for q, _ in rows)]).cumsum(0).int()
        order = torch.randperm(80).int().repeat(len(rows), 1)
        group = GroupTables(order, torch.empty(0, dtype=torch.int64))
        tokens = int(starts[-1])
        plain = batch(tokens)
        lens = torch.tensor([keys for _, keys in rows]).int()
        given = Batch(plain.ids, plain.ids, starts, lens, plain.wanted, (group,))
        q = torch.randn(tokens, heads * dim)
        found, expected = torch.empty_like(q), torch.empty_like(q)
        op = recorded(isa, tokens)
        op.attention(q, found, cache, dim**-0.5, 700, window, softcap)
        op.run(given)
        twin.attention(q, expected, cache, dim**-0.5, given, window, softcap)
        tolerance = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.int8: 5e-4}[dtype]
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@ISAS
@pytest.mark.parametrize("vocab", [1, 15, 1000])
def test_argmax(vocab: int, isa: str) -> None:
    logits = torch.randn(8, vocab).round(decimals=1)  # with ties
    logits[1] = -math.inf
    logits[2, vocab // 2] = math.inf
    logits[3, vocab - 1] = math.nan
    logits[4, vocab // 2 :] = -math.inf
    ids, maxima = torch.empty(2, 8, dtype=torch.int64), torch.empty(2, 8)
    op = recorded(isa, 8)
    op.argmax(logits, ids[0], maxima[0])
    op.run(batch(8, torch.arange(8)))
    twin.argmax(logits, ids[1], maxima[1])
    assert torch.equal(ids[0], ids[1])
    assert torch.equal(maxima[0].nan_to_num(7), maxima[1].nan_to_num(7))
