from __future__ import annotations

import numpy as np
import pytest
import torch

from penstock.engine.bitmask import on_device


@pytest.mark.parametrize("size", [32, 40, 97, 4096])
def test_bits_become_minus_infinity(size: int) -> None:
    """Against a loop over every bit; rows without a mask stay as they are."""
    generator = np.random.default_rng(size)
    words = [generator.integers(0, 2**32, -(-size // 32), np.uint32) for _ in range(2)]
    logits = torch.randn(4, size)
    wanted = logits.clone()
    for row, bits in zip((3, 1), words, strict=True):
        for token in range(size):
            if not int(bits[token // 32]) >> (token % 32) & 1:
                wanted[row, token] = float("-inf")
    on_device([3, 1], words, torch.device("cpu")).apply(logits)
    assert torch.equal(logits, wanted)
