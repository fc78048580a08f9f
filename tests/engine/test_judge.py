"""Steps held against an entry of the hardware table, and how that entry is found."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from penstock.core.plan import StepPlan
from penstock.engine import judge
from penstock.engine.client import EngineStats
from penstock.engine.judge import Judge, ceiling, find_device, step_work
from penstock.errors import ConfigError
from penstock.sizing.floor import Ceiling
from penstock.sizing.hardware import Device, Price, Rates, table, write_devices

CPU = torch.device("cpu")
HERE = Device("here", "cpu", 1e9, 20e9, Rates(fp32=100e9, bf16=400e9), Price(), "a test")
RAW = {
    "vocab_size": 1000,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 128,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
DECODE = StepPlan(1, slots=[0], starts=[9], counts=[1], tokens=[3], samples=[True])


def test_a_step_gets_its_work_its_floor_and_its_bound() -> None:
    work = step_work(RAW, "none", torch.bfloat16, kv_layer_bytes=2 * 2 * 16 * 2)
    stats = EngineStats(at=0.0, step_s=0.002, device_s=0.0019999)
    Judge(work, ceiling(HERE, "none", torch.bfloat16, 1)).note(DECODE, stats)
    matrices = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 128 * 64) + 1000 * 64
    norms, kv = (2 * 2 + 1) * 64, 2 * (10 + 1) * 2 * 2 * 16
    assert stats.bytes_moved == 2 * (matrices + norms + 64 + kv)
    assert stats.operations == 2 * matrices + 2 * 4 * 4 * 16 * 10
    assert stats.floor_s == stats.bytes_moved / 20e9
    assert stats.bound == "memory"


def test_a_device_that_waited_longer_than_it_had_to_work_is_bound_by_the_host() -> None:
    work = step_work(RAW, "none", torch.bfloat16, kv_layer_bytes=128)
    stats = EngineStats(at=0.0, step_s=0.002, device_s=0.001)
    Judge(work, Ceiling(20e9, 400e9)).note(DECODE, stats)
    assert stats.bound == "host"


def test_without_hardware_or_shape_nothing_is_claimed() -> None:
    stats = EngineStats(at=0.0, step_s=0.002, device_s=0.001)
    Judge(step_work({}, "none", torch.float32, 1.0), Ceiling(1.0, 1.0)).note(DECODE, stats)
    assert (stats.bytes_moved, stats.floor_s, stats.bound) == (0.0, 0.0, "")
    Judge(step_work(RAW, "int8", torch.float32, 1.0), None).note(DECODE, stats)
    assert stats.bytes_moved > 0
    assert (stats.floor_s, stats.bound) == (0.0, "")
    assert ceiling(HERE, "int8", torch.float32, 1) is None


def test_ranks_share_a_cpu_and_have_gpus_of_their_own() -> None:
    assert ceiling(HERE, "none", torch.float32, 4) == Ceiling(20e9, 100e9)
    gpu = table()["L4"]
    assert ceiling(gpu, "int4", torch.bfloat16, 2) == Ceiling(2 * gpu.bandwidth, 2 * 242e12)


def test_named_entries_and_files(tmp_path: Path) -> None:
    assert find_device("L4", CPU, 1)[0] is table()["L4"]
    path = tmp_path / "own.toml"
    path.write_text(write_devices([HERE]))
    found, note = find_device(str(path), CPU, 1)
    assert found.bandwidth == 20e9
    assert note == "hardware: 20.0 GB/s, G operations/s fp32 100, bf16 400 (a test)"
    path.write_text(write_devices([HERE, HERE]))
    for wanted in (str(path), "a toaster"):
        with pytest.raises(ConfigError) as error:
            find_device(wanted, CPU, 1)
        assert error.value.param == "roofline_hardware"


def test_a_cpu_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    threads = []

    def measured(name: str, device: torch.device, note: str, runs: int) -> Device:
        threads.append(torch.get_num_threads())
        return HERE

    monkeypatch.setattr(judge, "measure", measured)
    before = torch.get_num_threads()
    assert find_device(None, CPU, 3)[0] == find_device(None, CPU, 3)[0]
    assert threads == [3 * before]
    assert torch.get_num_threads() == before
    next(tmp_path.rglob("*.toml")).write_text("not TOML [")
    find_device(None, CPU, 3)
    assert len(threads) == 2
