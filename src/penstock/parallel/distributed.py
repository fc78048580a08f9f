"""Collectives over torch.distributed: gloo for tensors on the CPU, NCCL on CUDA.

The process groups are objects of our own, not torch's global ones, so that a process may be in
several, and the store through which ranks meet is a file without a name.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch.distributed import FileStore, Work  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import (  # type: ignore[attr-defined]
    AllgatherOptions,
    BroadcastOptions,
    GatherOptions,
)

from penstock.errors import EngineError
from penstock.parallel.shared import add_in_order

LOCAL = "127.0.0.1"


class Distributed:
    """A Transport. `all_reduce` gathers and adds in the order of ranks: gloo's own goes around a
    ring, so that the order would depend on a value's place in the tensor and with it on the
    batch."""

    def __init__(
        self, fd: int, rank: int, size: int, device: torch.device, timeout_s: float
    ) -> None:
        """fd: an empty unnamed file that all ranks hold. Waits for all of them. Raises
        EngineError."""
        self._rank = rank
        self._size = size
        try:
            self._group = _connect(fd, rank, size, device, timedelta(seconds=timeout_s))
        except RuntimeError as error:
            raise EngineError(f"Rank {rank} of {size} found no connection: {error}") from error

    def all_reduce(self, x: Tensor) -> None:
        """See Transport."""
        parts = [torch.empty_like(x) for _ in range(self._size)]
        self._wait(self._group.allgather([parts], [x], AllgatherOptions()))
        add_in_order(parts, x)

    def gather(self, x: Tensor, parts: list[Tensor]) -> None:
        """See Transport."""
        padded = _padded(x, parts)
        options = GatherOptions()
        options.rootRank = 0
        if self._rank:
            self._wait(self._group.gather([], [padded], options))
            return
        found = [torch.empty_like(padded) for _ in parts]
        self._wait(self._group.gather([found], [padded], options))
        _unpad(found, parts)

    def all_gather(self, x: Tensor, parts: list[Tensor]) -> None:
        """See Transport."""
        padded = _padded(x, parts)
        found = [torch.empty_like(padded) for _ in parts]
        self._wait(self._group.allgather([found], [padded], AllgatherOptions()))
        _unpad(found, parts)

    def broadcast(self, x: Tensor) -> None:
        """See Transport."""
        options = BroadcastOptions()
        options.rootRank = 0
        self._wait(self._group.broadcast([x], options))

    def _wait(self, work: Work) -> None:
        try:
            work.wait()
        except RuntimeError as error:
            raise EngineError(f"Rank {self._rank} lost the others: {error}") from error


def _padded(x: Tensor, parts: list[Tensor]) -> Tensor:
    """x, flat, as long as the longest part: torch.distributed wants equal sizes."""
    padded = torch.empty(max(map(Tensor.numel, parts)), dtype=x.dtype, device=x.device)
    padded[: x.numel()].copy_(x.view(-1))
    return padded


def _unpad(found: list[Tensor], parts: list[Tensor]) -> None:
    for part, flat in zip(parts, found, strict=True):
        part.view(-1).copy_(flat[: part.numel()])


def _connect(fd: int, rank: int, size: int, device: torch.device, timeout: timedelta) -> Any:
    # Its destructor, whenever the collector comes to it, opens the path once more: the number must
    # then still be this file's, so this copy of it stays open as long as the process.
    store = FileStore(f"/dev/fd/{os.dup(fd)}", size)
    store.set_timeout(timeout)
    if device.type == "cuda":
        from torch.distributed import ProcessGroupNCCL

        nccl = ProcessGroupNCCL.Options()
        nccl._timeout = timeout
        return ProcessGroupNCCL(store, rank, size, nccl)
    gloo: Any = torch.distributed.ProcessGroupGloo
    options = gloo._Options()
    options._timeout = timeout
    options._devices = [gloo.create_device(hostname=LOCAL)]
    return gloo(store, rank, size, options)
