"""Names of KV blocks for prompts that are known as segments, in place of their ids.

Two names are equal if and only if the texts agree from the start to the block's end, as with the
hashes of real ids (64 bits; equal by chance once in many billions of blocks). Inside a segment the
names count upwards from one hash, which is what makes millions of long prompts affordable.
"""

from __future__ import annotations

from penstock.workload.prefixes import Prompt, name_of

_MASK = 2**64 - 1


def block_names(prompt: Prompt, block_size: int) -> list[bytes]:
    """One name for each full block."""
    names: list[int] = []
    parent, filled, pieces = 0, 0, [0]
    for segment in prompt:
        start = 0
        if filled:
            taken = min(segment.tokens, block_size - filled)
            pieces += (segment.id, 0, taken)
            start, filled = taken, filled + taken
            if filled == block_size:
                parent = name_of(*pieces)
                names.append(parent)
                filled, pieces = 0, [parent]
        whole = (segment.tokens - start) // block_size
        if whole:
            first = name_of(parent, segment.id, start)
            names.extend(range(first, first + whole))
            start += whole * block_size
            parent = name_of(names[-1])
            pieces = [parent]
        if start < segment.tokens:
            filled = segment.tokens - start
            pieces += (segment.id, start, filled)
    return [(name & _MASK).to_bytes(8, "little") for name in names]
