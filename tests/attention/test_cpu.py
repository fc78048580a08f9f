"""The kernels' backend against the truth, and its promise: no bit depends on the company."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
import torch

from penstock.attention.cpu import CpuAttention
from penstock.attention.torch_reference import TorchReference
from penstock.errors import UnsupportedError
from penstock.kernels import cpu
from tests.attention.paged import Case, build

pytestmark = pytest.mark.skipif(cpu.available() is not None, reason=str(cpu.available()))

ROWS = {
    "decode": ((1, 1), (1, 16), (1, 33), (1, 17)),
    "long-decode": ((1, 1400), (1, 600)),
    "first-chunk": ((20, 20), (16, 16)),
    "mixed": ((1, 90), (20, 20), (1, 5), (7, 50), (1, 64), (70, 600)),
}
HEADS = ((4, 4, 16), (6, 2, 48), (9, 3, 64), (8, 1, 128), (2, 1, 256))
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2}


@pytest.mark.parametrize("isa", cpu.isas())
@pytest.mark.parametrize("rows", ROWS)
def test_equals_the_truth(rows: str, isa: str) -> None:
    backend = CpuAttention(2, isa)
    draw = random.Random(rows)
    for heads in HEADS:
        for dtype, tolerance in TOLERANCE.items():
            size, window = draw.choice((16, 32, 64)), draw.choice((0, 9, 64))
            softcap = draw.choice((0.0, 3.0))
            case = Case(
                ROWS[rows], *heads, block_size=size, window=window, softcap=softcap, dtype=dtype
            )
            expected = build(case).attend(TorchReference())
            found = build(case).attend(backend)
            assert found.dtype == dtype
            torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("window", [0, 20])
@pytest.mark.parametrize("dtype", [*TOLERANCE, torch.int8])
def test_infinite_leftovers_of_a_blocks_last_owner_are_harmless(
    window: int, dtype: torch.dtype
) -> None:
    """A request whose activations overflow must not poison those that get its blocks."""
    clean, stale = (
        build(Case(ROWS["mixed"], head_dim=32, window=window, kv_dtype=dtype)).attend(
            CpuAttention(1), stale=value
        )
        for value in (0.0, math.inf)
    )
    torch.testing.assert_close(clean, stale, rtol=0, atol=0)


@pytest.mark.parametrize("isa", cpu.isas())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
@pytest.mark.parametrize("window", [0, 100])
def test_no_bit_depends_on_chunks_threads_blocks_or_other_rows(
    dtype: torch.dtype, window: int, isa: str
) -> None:
    """One sequence, computed whole, then in random chunks beside other rows, elsewhere in the
    cache, by another number of threads."""
    length, heads, kv_heads, dim = 700, 6, 2, 32
    case = Case(((length, length),), heads, kv_heads, dim, window=window)
    whole = build(case)
    k, v = whole.kv[0]
    expected = _attend(CpuAttention(1, isa), whole.q, k, v, [length], 16, dtype, window, seed=0)
    for seed, threads, size in ((1, 2, 16), (2, 3, 32), (3, 1, 64)):
        draw = random.Random(seed)
        chunks = []
        while sum(chunks) < length:
            chunks.append(min(draw.choice((1, 1, 5, 64, 200)), length - sum(chunks)))
        backend = CpuAttention(threads, isa)
        found = _attend(backend, whole.q, k, v, chunks, size, dtype, window, seed)
        assert torch.equal(found, expected)


def _attend(
    backend: CpuAttention,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    chunks: list[int],
    block_size: int,
    dtype: torch.dtype,
    window: int,
    seed: int,
) -> torch.Tensor:
    """The sequence in chunks, each between two rows of another sequence."""
    length, kv_heads, dim = k.shape
    blocks = -(-length // block_size)
    order = torch.randperm(2 * blocks, generator=torch.Generator().manual_seed(seed)).int()
    mine, other = order[:blocks], order[blocks:]
    cache = backend.allocate(2 * blocks, block_size, kv_heads, dim, dtype, torch.device("cpu"))
    out, start = [], 0
    for count in chunks:
        end = start + count
        lens = (3, count, 1)
        case = Case(((3, end + 2), (count, end), (1, 5)), q.shape[1], kv_heads, dim, seed=seed)
        beside = build(replace(case, block_size=block_size))
        tables = beside.batch.groups[0]
        table = torch.zeros(3, blocks + 1, dtype=torch.int32)
        table[1, :blocks] = mine
        table[0, :blocks] = table[2, :blocks] = other
        at = torch.arange(start, end)
        tables.block_tables = table
        tables.slot_mapping = mine[at // block_size].long() * block_size + at % block_size
        backend.write(cache, k[start:end], v[start:end], tables)
        queries = beside.q.clone()
        queries[lens[0] : lens[0] + count] = q[start:end]
        found = backend.attend(queries, cache, beside.batch, tables, dim**-0.5, window)
        out.append(found[lens[0] : lens[0] + count])
        start = end
    return torch.cat(out)


@pytest.mark.parametrize("isa", cpu.isas())
@pytest.mark.parametrize("window", [0, 9])
def test_a_cache_of_another_dtype(window: int, isa: str) -> None:
    """Both quantize alike; then int8 keeps 16 bits of the queries, and on tiles 8."""
    for heads in HEADS:
        for dtype, tolerance in ((torch.int8, 5e-4), (torch.bfloat16, 2e-2)):
            case = Case(ROWS["mixed"], *heads, window=window, softcap=3.0, kv_dtype=dtype)
            expected = build(case).attend(TorchReference())
            found = build(case).attend(CpuAttention(2, isa))
            close = 2e-2 if isa == "amx" else tolerance
            torch.testing.assert_close(found, expected, rtol=close, atol=close)


def test_int8_keys_and_values_stay_close() -> None:
    case = Case(ROWS["mixed"], 9, 3, 64)
    expected = build(case).attend(TorchReference())
    found = build(replace(case, kv_dtype=torch.int8)).attend(CpuAttention(1))
    assert (found - expected).abs().max() < 0.05


def test_an_odd_head_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="multiple of 16"):
        CpuAttention(1).allocate(1, 16, 1, 24, torch.float32, torch.device("cpu"))
