from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from penstock.errors import EngineError
from penstock.parallel.shared import (
    LINE,
    SharedMemory,
    Words,
    segment_bytes,
    unnamed_file,
    words_bytes,
)
from tests.parallel.talk import check_collectives, noise


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_collectives(size: int, dtype: torch.dtype) -> None:
    check_collectives(size, "shared_memory", dtype, 1000)


def test_pieces_make_no_difference() -> None:
    """Buffers of 64 bytes, so that every operation takes many rounds."""
    size, capacity = 3, 64
    fd = unnamed_file(segment_bytes(size, capacity))
    inputs = [noise(rank, 7, 11) for rank in range(size)]

    def act(rank: int) -> list[torch.Tensor]:
        memory = SharedMemory(fd, rank, size, lambda: False, capacity)
        x, ids = inputs[rank].clone(), torch.arange(50) * (rank == 0)
        parts = [torch.empty(4 * (r + 1), 5) for r in range(size)]
        mine = torch.full((4 * (rank + 1), 5), float(rank))
        for _ in range(20):
            memory.all_gather(mine, parts)
            assert all(part.eq(r).all() for r, part in enumerate(parts))
            memory.gather(mine, parts)
        memory.all_reduce(x)
        memory.broadcast(ids)
        return [x, ids, *parts]

    with ThreadPoolExecutor(size) as pool:
        found = list(pool.map(act, range(size)))
    os.close(fd)
    for x, ids, *_ in found:
        assert torch.equal(x, inputs[0] + inputs[1] + inputs[2])
        assert ids.tolist() == list(range(50))
    for rank, part in enumerate(found[0][2:]):
        assert part.eq(rank).all()


def test_who_waits_for_the_dead_is_told() -> None:
    fd = unnamed_file(segment_bytes(2))
    memory = SharedMemory(fd, 0, 2, lambda: True)
    os.close(fd)
    with pytest.raises(EngineError, match="gone"):
        memory.all_reduce(torch.ones(3))


def test_words_stand_apart_and_have_no_name() -> None:
    fd = unnamed_file(words_bytes(3))
    mine, yours = Words(fd, 3), Words(fd, 3)
    assert not os.fstat(fd).st_nlink
    mine[1] = 7
    assert [yours[i] for i in range(3)] == [0, 7, 0]
    assert words_bytes(3) >= 3 * LINE
    mine.close()
    yours.close()
    os.close(fd)
