"""How much KV cache fits, and its tensors.

All KV groups draw blocks from one pool. A block id addresses the same place in every tensor, so
the i-th layers of all groups share one tensor: a block belongs to one group at a time.
"""

from __future__ import annotations

import psutil
import torch
from torch import Tensor

from penstock.attention.base import AttentionBackend, vector_bytes
from penstock.core.plan import KVGroup
from penstock.errors import ConfigError

CPU_SHARE = 0.5
"""Part of the free memory of a CPU machine that an automatic cache may take: the rest is for
activations and for whoever else lives there, for the cost of too much is being killed."""
GPU_SHARE = 0.85
"""Part of what is free on a GPU once the weights are there."""


def block_bytes(
    groups: tuple[KVGroup, ...],
    block_size: int,
    num_kv_heads: int,
    head_dim: int,
    dtype: torch.dtype,
) -> int:
    """Bytes of one block: keys and values of block_size tokens, an int8 cache's scales included, in
    the layers of the largest group."""
    layers = max(len(group.layers) for group in groups)
    return layers * 2 * block_size * num_kv_heads * vector_bytes(head_dim, dtype)


def available_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def choose_num_blocks(
    wanted_bytes: int | None,
    bytes_per_block: int,
    most_blocks: int,
    device: torch.device,
    sharers: int = 1,
    free_bytes: int | None = None,
) -> tuple[int, str]:
    """(number of blocks, the reason in words).

    wanted_bytes: --kv-cache-memory-bytes; None takes a safe share of the free memory, but no more
    than `most_blocks`, which is what all requests at full length could use. sharers: engines that
    start together on this memory, each of which takes its part of that share. free_bytes: what is
    free for this cache, where other ranks take their part of the device. Raises ConfigError when
    the wanted size is not there or holds no block.
    """
    free = available_bytes(device) if free_bytes is None else free_bytes
    if wanted_bytes is not None:
        if wanted_bytes > free:
            raise ConfigError(
                f"--kv-cache-memory-bytes is {wanted_bytes}, but only {free} bytes are free.",
                cure="Give a smaller number, or leave the flag away.",
                param="kv_cache_memory_bytes",
            )
        blocks, why = wanted_bytes // bytes_per_block, "as --kv-cache-memory-bytes says"
    else:
        share = CPU_SHARE if device.type == "cpu" else GPU_SHARE
        blocks, why = int(free * share) // bytes_per_block, f"{share:.0%} of the free memory"
        if sharers > 1:
            blocks, why = blocks // sharers, f"{why} for {sharers} engines"
        if blocks > most_blocks:
            blocks, why = most_blocks, "all requests at full length"
    if blocks < 1:
        raise ConfigError(
            f"The KV cache would hold no block of {bytes_per_block} bytes.",
            cure="Raise --kv-cache-memory-bytes, or free memory.",
            param="kv_cache_memory_bytes",
        )
    return blocks, why


def allocate_caches(
    backend: AttentionBackend,
    groups: tuple[KVGroup, ...],
    num_blocks: int,
    block_size: int,
    num_kv_heads: int,
    head_dim: int,
    dtype: torch.dtype,
    device: torch.device,
) -> list[Tensor]:
    """One cache a layer, in the order of the model's layers (tensors shared between groups)."""
    tensors = [
        backend.allocate(num_blocks, block_size, num_kv_heads, head_dim, dtype, device)
        for _ in range(max(len(group.layers) for group in groups))
    ]
    by_layer = {layer: tensors[i] for group in groups for i, layer in enumerate(group.layers)}
    return [by_layer[layer] for layer in sorted(by_layer)]
