"""Programs: replay for any batch, the pool, and batch invariance of a whole decoder layer."""

from __future__ import annotations

import random
import threading

import pytest
import torch

from penstock.kernels import cpu
from penstock.kernels.cpu import pack, program
from penstock.kernels.cpu.ops import Batch, Epilogue, GroupTables, KVCache, Rope
from penstock.kernels.cpu.pack import Format
from penstock.kernels.cpu.program import Program
from tests.kernels.cpu.weights import NOTHING, batch, packed

pytestmark = pytest.mark.skipif(cpu.available() is not None, reason=str(cpu.available()))

HIDDEN, MLP, HEADS, KV_HEADS, DIM, VOCAB, BLOCK = 96, 160, 6, 2, 32, 300, 16
MAX_TOKENS = 400


@pytest.mark.parametrize("isa", cpu.isas())
@pytest.mark.parametrize("form", Format)
def test_a_row_does_not_depend_on_its_company(form: Format, isa: str) -> None:
    """Any number of rows, any number of threads: every tile shape of the kernels."""
    weight = packed(form, torch.randn(200, 330))
    x = torch.randn(MAX_TOKENS, 330)
    alone = torch.empty(MAX_TOKENS, 200)
    single = Program(program.pool(1), 1, isa=isa)
    row, out = torch.empty(1, 330), torch.empty(1, 200)
    single.linear(weight, row, out)
    for i in range(0, MAX_TOKENS, 7):
        row.copy_(x[i])
        single.run(batch(1))
        alone[i] = out[0]
    for threads, rows in ((1, 400), (2, 113), (3, 40), (2, 29), (3, 18), (1, 16), (2, 8), (3, 3)):
        found = torch.empty(rows, 200)
        together = Program(program.pool(threads), rows, isa=isa)
        together.linear(weight, x[:rows], found)
        together.run(batch(rows))
        assert torch.equal(found[::7], alone[:rows:7])


class Layer:
    """One decoder layer and a head over a cache of its own, as a program."""

    def __init__(self, form: Format, kv_dtype: torch.dtype, threads: int, isa: str | None) -> None:
        torch.manual_seed(0)

        def weight(n: int, k: int) -> torch.Tensor:
            return torch.randn(n, k) * k**-0.5

        table = weight(VOCAB, HIDDEN) * HIDDEN**0.5
        gate_up = pack.interleave(weight(MLP, HIDDEN), weight(MLP, HIDDEN))
        norm = torch.rand(HIDDEN) + 0.5
        angles = torch.arange(500)[:, None] * 10000.0 ** (-torch.arange(DIM // 2) / (DIM // 2))
        rope = Rope(angles.cos(), angles.sin(), torch.rand(DIM), torch.rand(DIM), 1e-6)
        self.cache = KVCache.allocate(64, kv_dtype, BLOCK, KV_HEADS, DIM)
        x = torch.empty(MAX_TOKENS, HIDDEN)
        qkv = torch.empty(MAX_TOKENS, (HEADS + 2 * KV_HEADS) * DIM)
        q, attended = torch.empty(2, MAX_TOKENS, HEADS * DIM)
        act = torch.empty(MAX_TOKENS, MLP, dtype=torch.bfloat16)
        self.logits = torch.empty(MAX_TOKENS, VOCAB)
        p = self.program = Program(program.pool(threads), MAX_TOKENS, isa=isa)
        p.embed(pack.pack_float(table), x)
        p.linear(packed(form, weight(qkv.shape[1], HIDDEN)), x, qkv, norm, 1e-6)
        p.rope(qkv, q, self.cache, rope)
        p.attention(q, attended, self.cache, DIM**-0.5, 500)
        p.linear(packed(form, weight(HIDDEN, HEADS * DIM)), attended, x, epilogue=Epilogue.ADD)
        p.linear(packed(form, gate_up), x, act, norm, 1e-6, Epilogue.SILU_MUL)
        p.linear(packed(form, weight(HIDDEN, MLP)), act, x, epilogue=Epilogue.ADD)
        p.linear(packed(form, table), x, self.logits, norm, 1e-6, wanted=True)

    def run(self, ids: torch.Tensor, chunks: list[tuple[int, int]], tables: torch.Tensor) -> None:
        """Rows of (first position, tokens); all positions are wanted."""
        slots, positions = [], []
        for table, (start, count) in zip(tables, chunks, strict=True):
            at = torch.arange(start, start + count)
            positions.append(at)
            slots.append(table[at // BLOCK].long() * BLOCK + at % BLOCK)
        starts = torch.tensor([0, *(count for _, count in chunks)]).cumsum(0).int()
        lens = torch.tensor([start + count for start, count in chunks]).int()
        groups = (GroupTables(tables, torch.cat(slots)),)
        wanted = torch.arange(len(ids))
        self.program.run(Batch(ids, torch.cat(positions), starts, lens, wanted, groups))


@pytest.mark.parametrize("isa", cpu.isas())
@pytest.mark.parametrize(
    ("form", "kv_dtype"),
    [
        (Format.FLOAT32, torch.float32),
        (Format.BFLOAT16, torch.bfloat16),
        (Format.INT8, torch.int8),
        (Format.INT4, torch.bfloat16),
    ],
)
def test_a_layer_does_not_depend_on_chunks_company_or_threads(
    form: Format, kv_dtype: torch.dtype, isa: str
) -> None:
    ids = torch.randint(0, VOCAB, (2, 150), generator=torch.Generator().manual_seed(3))
    tables = torch.randperm(64, generator=torch.Generator().manual_seed(4)).int().view(2, 32)
    whole = Layer(form, kv_dtype, 1, isa)
    whole.run(ids[0], [(0, 150)], tables[:1])
    expected = whole.logits[:150].clone()
    for seed, threads in ((1, 2), (2, 3)):
        draw = random.Random(seed)
        layer = Layer(form, kv_dtype, threads, isa)
        start = 0
        while start < 150:
            count = min(draw.choice((1, 1, 3, 20, 70)), 150 - start)
            part = slice(start, start + count)
            layer.run(ids[:, part].flatten(), [(start, count)] * 2, tables)
            assert torch.equal(layer.logits[:count], expected[part])
            start += count


def test_a_batch_that_is_too_large_is_refused() -> None:
    p = Program(program.pool(1), 4, 2)
    with pytest.raises(ValueError, match="larger"):
        p.run(batch(5))
    with pytest.raises(ValueError, match="larger"):
        p.run(batch(4, torch.arange(3)))


def test_a_buffer_of_another_size_is_refused() -> None:
    p = Program(program.pool(1), 4)
    weight = packed(Format.FLOAT32, torch.randn(8, 16))
    for x, out in (
        (torch.empty(4, 15), torch.empty(4, 8)),
        (torch.empty(3, 16), torch.empty(4, 8)),
        (torch.empty(4, 16), torch.empty(4, 9)),
        (torch.empty(16, 4).T, torch.empty(4, 8)),
    ):
        with pytest.raises(ValueError, match="expected"):
            p.linear(weight, x, out)


def test_an_instruction_set_that_is_missing_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot run"):
        Program(program.pool(1), 1, isa="altivec")


@pytest.mark.parametrize(("block_size", "dim"), [(8, 32), (16, 24), (16, 272), (0, 32)])
def test_a_cache_that_the_kernels_cannot_read_is_refused(block_size: int, dim: int) -> None:
    cache = KVCache.allocate(1, torch.float32, block_size, 2, dim)
    q = torch.empty(1, 4 * dim)
    with pytest.raises(ValueError, match="multiples of 16"):
        Program(program.pool(1), 1).attention(q, q.clone(), cache, 1.0, 16)


def test_query_heads_that_do_not_share_evenly_are_refused() -> None:
    cache = KVCache.allocate(1, torch.float32, 16, 2, 32)
    q = torch.empty(1, 3 * 32)
    with pytest.raises(ValueError, match="evenly"):
        Program(program.pool(1), 1).attention(q, q.clone(), cache, 1.0, 16)


def test_an_empty_batch_does_nothing() -> None:
    p = Program(program.pool(2), 4)
    x, out = torch.ones(4, 16), torch.zeros(4, 8)
    p.linear(packed(Format.INT8, torch.ones(8, 16)), x, out)
    p.run(batch(0))
    assert not out.any()


def test_programs_of_one_pool_take_turns() -> None:
    """Four threads run programs on one pool of three workers, thousands of barriers in all."""
    workers = program.pool(3, spin_us=0)
    weight = packed(Format.INT8, torch.randn(64, 64))
    results = []

    def work(seed: int) -> None:
        x = torch.randn(2, 64, generator=torch.Generator().manual_seed(seed))
        out = torch.empty(20, 2, 64)
        p = Program(workers, 2)
        for i in range(20):
            p.linear(weight, x, out[i])
        for _ in range(50):
            out.zero_()
            p.run(batch(2))
            results.append(bool((out == out[0]).all() and out[0].any()))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 200


def test_profile_counts_each_op() -> None:
    p = Program(program.pool(1), 2)
    x = torch.randn(2, 16)
    p.norm(x, torch.ones(16), 1e-5, torch.empty(2, 16))
    p.linear(packed(Format.FLOAT32, torch.randn(8, 16)), x, torch.empty(2, 8))
    p.run(batch(2))
    assert p.profile(on=True) == [("norm", 0), ("linear", 0)]
    p.run(batch(2, NOTHING))
    spent = p.profile(on=False)
    assert [kind for kind, _ in spent] == ["norm", "linear"]
    assert all(ns > 0 for _, ns in spent)
