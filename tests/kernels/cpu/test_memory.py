"""Tensors from the arena: zeroed, aligned, apart, alive as long as they are held."""

from __future__ import annotations

import gc

import torch

from penstock.kernels.cpu.memory import ALIGN_BYTES, CHUNK_BYTES, PAGE_BYTES, Arena


def test_tensors_are_zeroed_aligned_and_apart() -> None:
    arena = Arena()
    shapes = [
        ((3, 5), torch.float32),
        ((7,), torch.uint8),
        ((0, 4), torch.int64),
        ((9,), torch.int64),
    ]
    tensors = [arena.zeros(shape, dtype) for shape, dtype in shapes]
    for i, (tensor, (shape, dtype)) in enumerate(zip(tensors, shapes, strict=True)):
        assert tensor.shape == shape
        assert tensor.dtype == dtype
        assert not tensor.any()
        assert tensor.data_ptr() % ALIGN_BYTES == 0
        tensor.fill_(i + 1)
    assert [set(t.flatten().tolist()) for t in tensors] == [{1}, {2}, set(), {4}]


def test_a_tensor_larger_than_a_chunk_begins_at_a_huge_page() -> None:
    arena = Arena()
    arena.zeros((10,), torch.uint8)
    large = arena.zeros((CHUNK_BYTES + 1,), torch.uint8)
    assert large.data_ptr() % PAGE_BYTES == 0
    large[-1] = 1
    assert large[-2:].tolist() == [0, 1]


def test_memory_lives_as_long_as_its_tensors() -> None:
    arena = Arena()
    tensor = arena.zeros((1000,), torch.float32)
    tensor.fill_(7)
    del arena
    gc.collect()
    assert (tensor == 7).all()
