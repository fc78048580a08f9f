from __future__ import annotations

import pytest
import torch

from tests.parallel.talk import check_collectives


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_collectives(size: int, dtype: torch.dtype) -> None:
    check_collectives(size, "distributed", dtype, 1000)
