from __future__ import annotations

import pytest
import torch

from penstock.layers.norm import RMSNorm


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 0.01)])
def test_divides_by_the_root_of_the_mean_square(dtype: torch.dtype, tolerance: float) -> None:
    layer = RMSNorm(48, 1e-3, dtype, torch.device("cpu"))
    weight, x = torch.randn(48).to(dtype), (torch.randn(5, 48) * 30).to(dtype)
    layer.targets("n")["n.weight"].load(weight)
    mean = x.double().pow(2).mean(-1, keepdim=True)
    expected = (x.double() / (mean + 1e-3).sqrt() * weight.double()).to(dtype)
    assert layer(x).dtype == dtype
    torch.testing.assert_close(layer(x), expected, rtol=tolerance, atol=tolerance)


def test_large_half_precision_values_do_not_overflow() -> None:
    layer = RMSNorm(8, 1e-6, torch.float16, torch.device("cpu"))
    layer.targets("n")["n.weight"].load(torch.ones(8))
    x = torch.full((1, 8), 30000.0, dtype=torch.float16)
    torch.testing.assert_close(layer(x), torch.ones_like(x))


def test_an_offset_is_added_when_the_weight_is_loaded() -> None:
    """Gemma's files hold what 1 lacks; in bfloat16 the sum would lose most of it."""
    norm = RMSNorm(4, 1e-6, torch.bfloat16, torch.device("cpu"), offset=1.0)
    target = norm.targets("n")["n.weight"]
    assert (target.shape, target.nbytes) == ((4,), 16)
    target.load(torch.full((4,), 2.0**-9, dtype=torch.bfloat16))
    x = torch.randn(3, 4).bfloat16()
    expected = x.float() * (x.float().square().mean(-1, keepdim=True) + 1e-6).rsqrt()
    assert norm(x).dtype == torch.bfloat16
    torch.testing.assert_close(norm(x), (expected * (1 + 2.0**-9)).bfloat16())
