"""Frequencies against transformers' own, and the rotation against complex numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from penstock.layers.rotary import Rope, Rotary, inverse_frequencies, yarn_attention_factor
from tests import oracle

CPU = torch.device("cpu")
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "factor": 8.0}
CASES: list[tuple[Rope, dict[str, Any]]] = [
    (Rope(500.0), {}),
    (Rope(10000.0, "linear", factor=3.0), {"factor": 3.0}),
    (
        Rope(500000.0, "llama3", factor=8.0, original_max=256),
        LLAMA3 | {"original_max_position_embeddings": 256},
    ),
    (
        Rope(1e4, "longrope", original_max=512, factors=tuple(1 + i / 8 for i in range(32))),
        {
            "factor": 4.0,
            "original_max_position_embeddings": 512,
            "short_factor": [1 + i / 8 for i in range(32)],
            "long_factor": [2.0] * 32,
        },
    ),
    (
        Rope(1e6, "yarn", factor=4.0, original_max=1024),
        {"factor": 4.0, "original_max_position_embeddings": 1024},
    ),
    (
        Rope(1e4, "yarn", factor=16.0, original_max=64, beta_fast=8, beta_slow=2, truncate=False),
        {
            "factor": 16.0,
            "original_max_position_embeddings": 64,
            "beta_fast": 8.0,
            "beta_slow": 2.0,
            "truncate": False,
        },
    ),
]


@pytest.mark.parametrize(("rope", "fields"), CASES, ids=lambda value: getattr(value, "kind", ""))
def test_frequencies_are_those_of_transformers(rope: Rope, fields: dict[str, Any]) -> None:
    expected, factor = oracle.rope(rope.kind, rope.theta, 64, fields)
    torch.testing.assert_close(inverse_frequencies(rope, 64), expected, rtol=1e-6, atol=0)
    if rope.kind == "yarn":
        assert yarn_attention_factor(rope.factor) == pytest.approx(factor)


def test_yarn_factor_of_deepseek() -> None:
    ratio = (0.1 * 0.7 * 3.6888794541139363 + 1) / (0.1 * 3.6888794541139363 + 1)
    assert yarn_attention_factor(40.0, 0.7, 1.0) == pytest.approx(ratio)
    assert yarn_attention_factor(1.0) == 1.0


def test_rotates_pairs_like_complex_numbers() -> None:
    x, positions = torch.randn(4, 3, 10), torch.tensor([0, 1, 7, 4095])
    rotated = Rotary(Rope(), 10, torch.float32, CPU)(positions)(x)
    turn = torch.polar(
        torch.ones(4, 1, 5, dtype=torch.float64),
        positions[:, None, None].double() * inverse_frequencies(Rope(), 10).double(),
    )
    expected = torch.complex(x[..., :5].double(), x[..., 5:].double()) * turn
    expected = torch.cat((expected.real, expected.imag), -1).float()
    torch.testing.assert_close(rotated, expected, rtol=0, atol=1e-3)


def test_attention_factor_scales_and_dtype_is_kept() -> None:
    x = torch.randn(2, 1, 4).bfloat16()
    at = torch.tensor([0, 0])
    rotated = Rotary(Rope(attention_factor=2.0), 4, torch.bfloat16, CPU)(at)(x)
    assert rotated.dtype == torch.bfloat16
    assert torch.equal(rotated, x * 2)


def test_a_part_of_each_head() -> None:
    x, at = torch.randn(3, 2, 12), torch.tensor([0, 5, 9])
    rotated = Rotary(Rope(partial=0.5), 12, torch.float32, CPU)(at)(x)
    assert torch.equal(rotated[..., 6:], x[..., 6:])
    expected = Rotary(Rope(), 6, torch.float32, CPU)(at)(x[..., :6].contiguous())
    assert torch.equal(rotated[..., :6], expected)
