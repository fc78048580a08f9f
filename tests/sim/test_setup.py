from __future__ import annotations

from dataclasses import replace

import pytest

from penstock.config.engine import EngineConfig
from penstock.core.plan import KVGroup
from penstock.errors import ConfigError
from penstock.sim.setup import engine_spec, groups_of
from penstock.sizing.hardware import table
from penstock.sizing.precision import precision
from tests.sizing.models import LLAMA_8B, shape

BF16, L4, H100 = precision("bf16"), table()["L4"], table()["H100"]


def test_the_engine_gets_what_its_options_and_its_device_say() -> None:
    model = shape(LLAMA_8B)
    spec = engine_spec(EngineConfig(max_num_seqs=32, block_size=32), model, H100, BF16, 4096)
    assert (spec.limits.max_num_seqs, spec.limits.max_num_batched_tokens) == (32, 8192)
    assert (spec.limits.max_model_len, spec.limits.depth, spec.block_size) == (4096, 2, 32)
    assert spec.limits.max_mixed_prefill_tokens is None
    # 80 GB, 95% of it, without 16 GB of weights and a runtime, at 128 KiB a token
    assert spec.num_blocks * 32 == pytest.approx((76e9 - 16.06e9 - 1.5e9) / 131072, rel=0.03)
    given = EngineConfig(kv_cache_memory_bytes=2**30)
    assert engine_spec(given, model, H100, BF16).num_blocks == 512
    ranks = EngineConfig(kv_cache_memory_bytes=2**30, tensor_parallel_size=2)
    assert engine_spec(ranks, model, H100, BF16).num_blocks == 1024


def test_windows_become_groups() -> None:
    model = replace(shape(LLAMA_8B), windows=(0, 4096, 0, 4096))
    assert groups_of(model) == (KVGroup((0, 2), 0), KVGroup((1, 3), 4096))


@pytest.mark.parametrize(
    ("config", "name", "device", "told"),
    [
        (EngineConfig(pipeline_parallel_size=2), "bf16", H100, "pipeline"),
        (EngineConfig(), "fp32", L4, "no room"),
        (EngineConfig(), "fp8", table()["A100"], "no fp8"),
    ],
)
def test_what_cannot_be_is_refused(
    config: EngineConfig, name: str, device: object, told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        engine_spec(config, shape(LLAMA_8B), device, precision(name))  # type: ignore[arg-type]
