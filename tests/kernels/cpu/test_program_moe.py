"""The ops of sparse layers, on each instruction set of this machine, against their twins."""

from __future__ import annotations

import pytest
import torch

from penstock.kernels import cpu
from penstock.kernels.cpu import pack, program, twin
from penstock.kernels.cpu.ops import Epilogue, Routing
from penstock.kernels.cpu.pack import Format
from penstock.kernels.cpu.program import Program
from tests.kernels.cpu.weights import batch, packed

pytestmark = pytest.mark.skipif(cpu.available() is not None, reason=str(cpu.available()))

EXPERTS = 6


def routed(logits: torch.Tensor, top_k: int, normalised: bool, threads: int) -> Routing:
    routing = Routing.allocate(len(logits), logits.shape[1], top_k, normalised)
    op = Program(program.pool(threads), len(logits))
    op.route(logits, routing)
    op.run(batch(len(logits)))
    return routing


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("top_k", [1, 2, EXPERTS])
def test_route(top_k: int, normalised: bool, threads: int) -> None:
    for rows in (1, 2, 37):
        logits = torch.randn(rows, EXPERTS)
        logits[0] = 1.0  # all equal: chosen by number
        found = routed(logits, top_k, normalised, threads)
        expected = Routing.allocate(rows, EXPERTS, top_k, normalised)
        twin.route(logits, expected)
        torch.testing.assert_close(found.weights, expected.weights)
        for name in ("places", "tokens", "starts"):
            assert torch.equal(getattr(found, name), getattr(expected, name)), name


def test_a_row_that_is_not_finite_keeps_to_itself() -> None:
    logits = torch.randn(3, EXPERTS)
    alone = routed(logits[2:], 2, True, 1).weights
    logits[1] = torch.nan
    found = routed(logits, 2, True, 1)
    assert found.weights[1].isnan().all()
    assert torch.equal(found.weights[2:], alone)
    assert found.starts[-1] == 6


def test_more_experts_than_there_are() -> None:
    with pytest.raises(ValueError, match="top_k"):
        routed(torch.randn(2, EXPERTS), EXPERTS + 1, True, 1)


@pytest.mark.parametrize("isa", cpu.isas())
@pytest.mark.parametrize("form", Format)
def test_experts_and_their_sum(form: Format, isa: str) -> None:
    tokens, top_k, size, inner = 40, 3, 64, 48
    torch.manual_seed(0)
    x, norm = torch.randn(tokens, size), torch.rand(size) + 0.5
    routing = routed(torch.randn(tokens, EXPERTS), top_k, True, 1)
    gate_up = [
        packed(form, pack.interleave(*(torch.randn(inner, size) * 0.1 for _ in range(2))))
        for _ in range(EXPERTS)
    ]
    down = [packed(form, torch.randn(size, inner) * 0.1) for _ in range(EXPERTS)]

    pairs, expected_pairs = torch.empty(tokens * top_k, inner), torch.empty(tokens * top_k, inner)
    products, expected = torch.empty(tokens * top_k, size), torch.empty(tokens * top_k, size)
    op = Program(program.pool(2), tokens, isa=isa)
    op.experts(gate_up, x, pairs, routing, True, norm, 1e-6, Epilogue.SILU_MUL)
    op.experts(down, pairs, products, routing, of_tokens=False)
    op.run(batch(tokens))
    twin.experts(gate_up, x, expected_pairs, routing, True, norm, 1e-6, Epilogue.SILU_MUL)
    torch.testing.assert_close(pairs, expected_pairs, rtol=0.02, atol=0.02)
    twin.experts(down, pairs, expected, routing, of_tokens=False)
    torch.testing.assert_close(products, expected, rtol=0.02, atol=0.02)

    for add in (False, True):
        out = torch.randn(tokens, size)
        true = out.clone()
        op = Program(program.pool(2), tokens, isa=isa)
        op.combine(products, routing, out, 0.5, add)
        op.run(batch(tokens))
        twin.combine(products, routing, true, 0.5, add)
        torch.testing.assert_close(out, true)
