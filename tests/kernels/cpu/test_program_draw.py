"""The native draw against its specification, engine/draw.py: equal ids."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from penstock.engine import draw
from penstock.kernels import cpu
from penstock.kernels.cpu import program
from penstock.kernels.cpu.ops import Filters
from penstock.kernels.cpu.program import Program
from tests.kernels.cpu.weights import batch

pytestmark = pytest.mark.skipif(cpu.available() is not None, reason=str(cpu.available()))

WAYS = [  # temperature, top_k, top_p, min_p
    (1.0, 0, 1.0, 0.0),
    (0.6, 0, 0.9, 0.0),
    (1.3, 0, 1.0, 0.05),
    (1.0, 0, 0.99, 0.001),
    (0.8, 40, 1.0, 0.0),
    (0.8, 40, 0.7, 0.02),
    (1.0, 1, 1.0, 0.0),
    (2.0, 900, 0.95, 0.0),
]


def native(isa: str, logits: Tensor, filters: Filters) -> Tensor:
    rows = len(logits)
    ids = torch.empty(rows, dtype=torch.int64)
    op = Program(program.pool(2), rows, isa=isa)
    op.draw(logits, filters, ids)
    op.run(batch(rows, torch.arange(rows)))
    return ids


def same(rows: int, way: tuple[float, int, float, float], uniform: Tensor) -> Filters:
    temperature, top_k, top_p, min_p = way
    return Filters(
        torch.full((rows,), 1 / temperature, dtype=torch.float64),
        torch.full((rows,), top_k),
        torch.full((rows,), top_p, dtype=torch.float64),
        torch.full((rows,), min_p, dtype=torch.float64),
        uniform,
    )


def by_specification(logits: Tensor, filters: Filters) -> Tensor:
    maxima, _ = draw.greedy(logits)
    top_k, uniform = int(filters.top_k[0]), filters.uniform
    given = draw.Filters(filters.inverse_temperature, filters.top_k, filters.top_p, filters.min_p)
    if 0 < top_k < logits.shape[1]:
        return draw.draw_top_k(logits, maxima, given, uniform, top_k)
    if filters.top_p[0] < 1 or filters.min_p[0] > 0:
        return draw.draw_wide(logits, maxima, given, uniform)
    return draw.draw_all(logits, maxima, given, uniform)


@pytest.mark.parametrize("isa", cpu.isas())
@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("vocab", [1, 50, 5003])
def test_equals_the_specification(
    vocab: int, way: tuple[float, int, float, float], isa: str
) -> None:
    rows = 24
    generator = torch.Generator().manual_seed(vocab)
    logits = torch.randn(rows, vocab, generator=generator) * 4
    logits[: rows // 2] = logits[: rows // 2].round()  # ties
    logits[0] = 1.5  # all equal
    logits[1, vocab // 3 + 1 :] = -math.inf
    uniform = torch.rand(rows, generator=generator, dtype=torch.float64)
    uniform[2:4] = torch.tensor([0.0, 1 - 2**-53])
    filters = same(rows, way, uniform)
    assert torch.equal(native(isa, logits, filters), by_specification(logits, filters))


@pytest.mark.parametrize("isa", cpu.isas())
def test_greedy_and_bad_rows(isa: str) -> None:
    logits = torch.randn(5, 100)
    logits[1, 70] = math.nan
    logits[2, 3] = math.inf
    logits[3] = -math.inf
    filters = same(5, WAYS[0], torch.full((5,), 0.5, dtype=torch.float64))
    filters.inverse_temperature[0] = 0
    found = native(isa, logits, filters).tolist()
    assert found[0] == int(logits[0].argmax())
    assert found[1:4] == [-1, -1, -1]
    assert 0 <= found[4] < 100
