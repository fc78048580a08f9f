"""Chained block hashes: the name of a full block of KV, equal in every process and version.

hash(block) = BLAKE2b-128(parent hash, ids as little-endian int32), the root being a hash of all
that must not be shared between requests (salt, KV dtype, adapter). Chaining makes a block's name
depend on the whole prefix before it, as in vLLM and nano-vllm.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import blake2b

HASH_BYTES = 16


def root(*keys: str) -> bytes:
    """The parent of first blocks. Each key is length-prefixed, so ("ab", "c") != ("a", "bc")."""
    digest = blake2b(digest_size=HASH_BYTES)
    for key in keys:
        data = key.encode()
        digest.update(struct.pack("<I", len(data)))
        digest.update(data)
    return digest.digest()


def block_hash(parent: bytes, ids: Sequence[int]) -> bytes:
    return blake2b(parent + struct.pack(f"<{len(ids)}i", *ids), digest_size=HASH_BYTES).digest()


def extend(hashes: list[bytes], parent: bytes, tokens: Sequence[int], block_size: int) -> None:
    """Append to `hashes` those of the full blocks of `tokens` that it does not hold yet."""
    for first in range(len(hashes) * block_size, len(tokens) - block_size + 1, block_size):
        hashes.append(
            block_hash(hashes[-1] if hashes else parent, tokens[first : first + block_size])
        )
