from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import oracle
from tests.evals.readers import checkpoint, reader


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_each_window_stands_alone(family: str, tmp_path: Path) -> None:
    """Logits of every position are those of transformers, whatever was read before."""
    path = checkpoint(tmp_path, family=family)
    ours = reader(path, context=90)
    for ids in oracle.prompts(0, 6, 320)[::-1]:
        with torch.inference_mode():
            found = ours.model.logits(ours.hidden(ids))
        expected = oracle.logits(path, tuple(ids), torch.float32)
        torch.testing.assert_close(found, expected, rtol=0, atol=oracle.TOLERANCE)
