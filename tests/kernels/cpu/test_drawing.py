"""The native draw against its specification, engine/draw.py: equal ids."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from penstock.engine import draw
from penstock.kernels import cpu
from penstock.kernels.cpu import program
from penstock.kernels.cpu.drawing import Drawer

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


def native(isa: str, logits: Tensor, given: draw.Filters, uniform: Tensor) -> Tensor:
    drawer = Drawer(program.pool(2), logits.shape[1], isa)
    return drawer(logits, given.inverse_temperature, given.top_k, given.top_p, given.min_p, uniform)


def same(rows: int, way: tuple[float, int, float, float]) -> draw.Filters:
    temperature, top_k, top_p, min_p = way
    return draw.Filters(
        torch.full((rows,), 1 / temperature, dtype=torch.float64),
        torch.full((rows,), top_k),
        torch.full((rows,), top_p, dtype=torch.float64),
        torch.full((rows,), min_p, dtype=torch.float64),
    )


def by_specification(logits: Tensor, given: draw.Filters, uniform: Tensor) -> Tensor:
    maxima, _ = draw.greedy(logits)
    top_k = int(given.top_k[0])
    if 0 < top_k < logits.shape[1]:
        return draw.draw_top_k(logits, maxima, given, uniform, top_k)
    if given.top_p[0] < 1 or given.min_p[0] > 0:
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
    given = same(rows, way)
    expected = by_specification(logits, given, uniform)
    assert torch.equal(native(isa, logits, given, uniform), expected)
    apart = torch.randn(rows, vocab + 3)[:, :vocab].copy_(logits)  # rows with a stride
    assert torch.equal(native(isa, apart, given, uniform), expected)


@pytest.mark.parametrize("isa", cpu.isas())
def test_greedy_and_bad_rows(isa: str) -> None:
    logits = torch.randn(5, 100)
    logits[1, 70] = math.nan
    logits[2, 3] = math.inf
    logits[3] = -math.inf
    given = same(5, WAYS[0])
    given.inverse_temperature[0] = 0
    found = native(isa, logits, given, torch.full((5,), 0.5, dtype=torch.float64)).tolist()
    assert found[0] == int(logits[0].argmax())
    assert found[1:4] == [-1, -1, -1]
    assert 0 <= found[4] < 100
