"""The work of a step against sums made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstock.sizing.floor import Ceiling, StepWork, Work
from penstock.sizing.precision import precision
from penstock.sizing.shape import ModelShape

L135 = ModelShape("l135", 49152, 576, 1536, 9, 3, 64, (0,) * 30, 8192, tied=True)
Q06 = ModelShape(
    "q06", 151936, 1024, 3072, 16, 8, 128, (0,) * 28, 4096, tied=True, qk_norm=True
)  # fmt: skip
# By hand. l135, a layer: q and o 576 x 576 each, k and v 192 x 576 each, three of 1536 x 576.
L135_LAYERS = 30 * (2 * 576 * 576 + 2 * 192 * 576 + 3 * 1536 * 576)
L135_HEAD = 49152 * 576
# q06, a layer: q and o 2048 x 1024, k and v 1024 x 1024, three of 3072 x 1024.
Q06_LAYERS = 28 * (2 * 2048 * 1024 + 2 * 1024 * 1024 + 3 * 3072 * 1024)
Q06_HEAD = 151936 * 1024


def test_the_shapes_are_those_of_the_models() -> None:
    assert L135_LAYERS + L135_HEAD == 134_479_872
    assert Q06_LAYERS + Q06_HEAD == 595_984_384


def test_one_token_of_bfloat16() -> None:
    """Position 127: it reads 128 keys, its own among them, and writes one."""
    work = StepWork(L135, precision("bf16")).of([127], [1], 1)
    norms = (30 * 2 + 1) * 576
    kv = 30 * (128 + 1) * 2 * 3 * 64
    assert work.bytes_moved == 2 * (L135_LAYERS + L135_HEAD + norms + 576 + kv)
    assert work.operations == 2 * (L135_LAYERS + L135_HEAD) + 30 * 4 * 9 * 64 * 128


def test_one_token_of_int8() -> None:
    """A scale a row is read with the weights; the head is int8 as well."""
    work = StepWork(Q06, precision("int8"), kv_layer_bytes=2 * 8 * 128 * 2).of([0], [1], 1)
    rows = 28 * (2048 + 2 * 1024 + 1024 + 2 * 3072 + 1024)
    norms = 28 * (2 * 1024 + (16 + 8) * 128) + 1024
    weights = Q06_LAYERS + 4 * rows + Q06_HEAD + 4 * 151936 + 2 * norms
    embedded, kv = 1024 + 4, 28 * 2 * (2 * 8 * 128 * 2)
    assert work.bytes_moved == weights + embedded + kv
    assert work.operations == 2 * (Q06_LAYERS + Q06_HEAD) + 28 * 4 * 16 * 128


def test_a_prompt_reads_weights_once_and_no_head_before_its_end() -> None:
    count = StepWork(L135, precision("bf16"))
    first, second = count.of([0], [512], 0), count.of([512], [512], 1)
    assert first.operations == 2 * L135_LAYERS * 512 + 30 * 4 * 9 * 64 * (512 * 513 // 2)
    pairs = 512 * 512 + 512 * 513 // 2
    assert second.operations == 2 * (L135_LAYERS * 512 + L135_HEAD) + 30 * 4 * 9 * 64 * pairs
    more = 2 * L135_HEAD + 30 * 512 * 2 * 2 * 3 * 64  # the head, and the first half's keys
    assert second.bytes_moved - first.bytes_moved == more


@pytest.mark.parametrize("window", [1, 5, 8, 100])
def test_windows_are_what_counting_gives(window: int) -> None:
    shape = replace(L135, windows=(0, window, window))
    starts, counts = [0, 3, 20], [7, 1, 9]
    work = StepWork(shape, precision("bf16"), kv_layer_bytes=1.0).of(starts, counts, 0)
    none = StepWork(shape, precision("bf16"), kv_layer_bytes=0.0).of(starts, counts, 0)
    keys = pairs = 0
    for width in shape.windows:
        for start, count in zip(starts, counts, strict=True):
            seen = [
                {k for k in range(p + 1) if not width or k > p - width}
                for p in range(start, start + count)
            ]
            keys += len(set().union(*seen))
            pairs += sum(map(len, seen))
    assert work.bytes_moved - none.bytes_moved == keys + 3 * 17
    matrices = 2 * (L135_LAYERS // 10) * 17
    assert work.operations == matrices + 4 * 9 * 64 * pairs


def test_decode_rows_are_counted_as_one_by_one() -> None:
    count = StepWork(L135, precision("int4"))
    both, alone = count.of([10, 200], [1, 1], 2), [count.of([at], [1], 1) for at in (10, 200)]
    assert both.operations == alone[0].operations + alone[1].operations
    kv, row = 30 * (11 + 1) * 2 * 3 * 64 * 2, 576 + 4
    weights = alone[0].bytes_moved - kv - row
    assert sum(work.bytes_moved for work in alone) - both.bytes_moved == weights


def test_experts_are_read_as_tokens_choose_them() -> None:
    moe = replace(L135, num_experts=8, experts_per_token=2, mlp_size=256)
    count = StepWork(moe, precision("bf16"), kv_layer_bytes=0.0)
    experts = 30 * 8 * 3 * 256 * 576 * 2
    one, many = count.of([0], [1], 0), count.of([0], [1000], 0)
    row = 576 * 2
    assert many.bytes_moved - 1000 * row - (one.bytes_moved - row) == pytest.approx(experts * 0.75)


def test_the_floor_is_the_longer_of_both_parts() -> None:
    ceiling = Ceiling(bandwidth=10e9, rate=100e9)
    assert Work(5e9, 1e9).floor(ceiling) == (0.5, "memory")
    assert Work(1e9, 200e9).floor(ceiling) == (2.0, "compute")
