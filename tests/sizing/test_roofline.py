"""Step times follow bytes and operations, and the bound has the right name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.sizing.hardware import table
from penstock.sizing.memory import weight_bytes
from penstock.sizing.precision import PRECISIONS
from penstock.sizing.roofline import Roofline
from tests.sizing.models import LLAMA_8B, LLAMA_70B, MIXTRAL, shape

DEVICES = table()
H100 = DEVICES["H100"]
BF16, FP8 = PRECISIONS["bf16"], PRECISIONS["fp8"]


def test_one_decode_is_the_weights_over_the_bandwidth() -> None:
    """8B in fp8 on an H100 at 4 TB/s: 2 ms. On an L4 in bf16: 16.06 GB less the embedding's 1.05,
    of which one row is read, at 0.3 TB/s: 50 ms."""
    ideal = replace(H100, bandwidth=4e12, bandwidth_share=1.0, step_s=0.0)
    cost = Roofline(shape(LLAMA_8B), FP8, ideal).decode(1, 100)
    assert cost.seconds == pytest.approx(2e-3, rel=0.1)
    assert cost.bound == "memory"
    l4 = replace(DEVICES["L4"], bandwidth_share=1.0, step_s=0.0)
    floor = Roofline(shape(LLAMA_8B), BF16, l4).decode(1, 100).seconds
    assert floor == pytest.approx(0.05, rel=0.01)


def test_a_long_prefill_is_bound_by_arithmetic() -> None:
    cost = Roofline(shape(LLAMA_8B), BF16, H100).prefill(4096)
    assert cost.bound == "compute"
    ridge = H100.ridge("bf16")
    assert ridge is not None
    assert cost.intensity > ridge
    flops = 2 * 6.98e9 * 4096 + 2 * 0.525e9 + 4 * 4096 * 32 * 4096 * 2048
    assert cost.operations == pytest.approx(flops, rel=0.01)


@pytest.mark.parametrize(
    ("device", "tp", "rows", "prefill", "bound"),
    [
        (H100, 1, 0, 4096, "compute"),
        (H100, 1, 8, 0, "memory"),
        (replace(H100, link=1e9), 8, 256, 0, "network"),
        (replace(H100, step_s=0.5), 1, 1, 0, "overhead"),
    ],
)
def test_each_bound_is_named(device: object, tp: int, rows: int, prefill: int, bound: str) -> None:
    cost = Roofline(shape(LLAMA_8B), BF16, device, tp).step(prefill, 0.0, rows, 1000.0)  # type: ignore[arg-type]
    assert cost.bound == bound


def test_tensor_parallel_ranks_share_the_bytes_and_pay_the_network() -> None:
    one = Roofline(shape(LLAMA_70B), FP8, H100, 1).decode(16, 2000)
    four = Roofline(shape(LLAMA_70B), FP8, H100, 4).decode(16, 2000)
    assert four.bytes_read == pytest.approx(one.bytes_read / 4, rel=0.05)
    assert one.network_s == 0
    assert four.network_s > 0
    assert four.seconds < one.seconds


def test_a_mixture_reads_the_experts_that_are_chosen() -> None:
    model = Roofline(shape(MIXTRAL), BF16, H100)
    one, many = model.decode(1, 10), model.decode(64, 10)
    assert one.bytes_read == pytest.approx(2 * 12.9e9, rel=0.05)
    assert many.bytes_read == pytest.approx(weight_bytes(shape(MIXTRAL), BF16), rel=0.05)
    assert one.operations == pytest.approx(2 * 12.7e9, rel=0.03)


def test_windows_bound_what_is_read() -> None:
    windowed = replace(shape(LLAMA_8B), windows=(1024,) * 32)
    full = Roofline(shape(LLAMA_8B), BF16, H100).decode(32, 32_000)
    short = Roofline(windowed, BF16, H100).decode(32, 32_000)
    assert full.bytes_read - short.bytes_read == pytest.approx(32 * 30_976 * 131072, rel=0.01)


def test_arithmetic_that_a_device_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="A100 has no fp8"):
        Roofline(shape(LLAMA_8B), FP8, DEVICES["A100"])


@given(
    st.integers(0, 4000), st.integers(0, 8000), st.integers(1, 256), st.integers(1, 8000),
    st.integers(0, 500),
)  # fmt: skip
def test_more_work_never_takes_less_time(
    prefill: int, before: int, rows: int, context: int, more: int
) -> None:
    model = Roofline(shape(LLAMA_8B), BF16, H100)
    base = model.step(prefill, before, rows, context).seconds
    assert model.step(prefill + more, before, rows, context).seconds >= base
    assert model.step(prefill, before, rows + more, context).seconds >= base
    assert model.step(prefill, before, rows, context + more).seconds >= base
