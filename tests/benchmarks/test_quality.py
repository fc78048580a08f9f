from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.quality import q4_0, q8_0

from tests.evals.readers import checkpoint
from tests.quant import naive
from tests.vocabularies import TEXTS, byte_level_json, write_folder

ROOT = Path(__file__).parents[2]


def test_q4_0_is_the_definition() -> None:
    weights = torch.randn(40, 96)
    weights[3] = 0
    assert np.array_equal(q4_0(weights).numpy(), naive.q4_0(weights.numpy()))


def test_q8_0_rounds_groups_to_nearest() -> None:
    x = torch.randn(8, 64)
    x[2, :32] = 0
    step = x.view(-1, 32).abs().amax(1, keepdim=True) / 127
    assert ((q8_0(x) - x).view(-1, 32).abs() <= 0.6 * step).all()
    assert q8_0(x)[2, :32].tolist() == [0] * 32


@pytest.mark.slow
def test_the_script_runs_to_its_last_claim(tmp_path: Path) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 96, "vocab_size": 512}
    model = write_folder(checkpoint(tmp_path, **sizes), byte_level_json())
    (tmp_path / "text").write_text("\n".join(TEXTS), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.quality", "--no-save"]
    flags = ["--model", str(model), "--text", str(tmp_path / "text")]
    done = subprocess.run(
        [*command, *flags], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "int4: KL / KL of Q4_0" in done.stdout
    assert "nan" not in done.stdout
