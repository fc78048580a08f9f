"""Low-rank additions to linear layers (LoRA, Hu et al. 2021), of several adapters in one batch.

y += (x A^T) B^T, where A and B are those of the adapter that the token's request asked for, B
scaled by alpha / rank already. Each adapter's tokens are multiplied together, and no token sees the
others' (Punica, Chen et al. 2023; S-LoRA, Sheng et al. 2023). Adapters stand in slots, which are
allocated once for the greatest rank: what an adapter lacks is zero.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from penstock.attention.base import AdapterRows
from penstock.parallel.ranks import Shard

LowRank = tuple[Tensor, Tensor]
"""A [rank, inputs] and the scaled B [outputs, rank], float32, of the whole matrix"""
Weights = Mapping[int, Mapping[str, LowRank]]
"""of one adapter: by layer, by name of the matrix"""


class Additions:
    """What the adapters in `slots` slots add to one linear layer, or to this rank's part of it.

    parts, inputs: those of the layer; joined: the name of all parts where the checkpoint has them
    as one matrix. A fused layer's A's lie one below another, its B's along the diagonal.
    """

    def __init__(
        self,
        parts: Mapping[str, Shard],
        inputs: Shard,
        slots: int,
        rank: int,
        joined: str | None,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.slots = slots
        self.width = len(parts) * rank
        """of what lies between the two products"""
        self.outputs = sum(part.count for part in parts.values())
        self._parts, self._inputs, self._rank, self._joined = parts, inputs, rank, joined
        self.a = torch.zeros(slots, self.width, inputs.count, dtype=dtype, device=device)
        self.b = torch.zeros(slots, self.outputs, self.width, dtype=dtype, device=device)

    def matrices(self, found: Mapping[str, LowRank]) -> tuple[Tensor, Tensor]:
        """A [width, inputs] and B [outputs, width], float32, of an adapter's matrices by name."""
        a = torch.zeros(self.width, self._inputs.count)
        b = torch.zeros(self.outputs, self.width)
        begin = row = 0
        for i, (name, part) in enumerate(self._parts.items()):
            first, pair = part.first, found.get(name)
            if self._joined in found:
                first, pair = begin + part.first, found[str(self._joined)]
            if pair is not None:
                columns = slice(i * self._rank, i * self._rank + len(pair[0]))
                inputs = slice(self._inputs.first, self._inputs.first + self._inputs.count)
                a[columns] = pair[0][:, inputs]
                b[row : row + part.count, columns] = pair[1][first : first + part.count]
            begin += part.whole
            row += part.count
        return a, b

    def store(self, slot: int, found: Mapping[str, LowRank]) -> None:
        """Put an adapter into a slot."""
        a, b = self.matrices(found)
        self.a[slot].copy_(a)
        self.b[slot].copy_(b)

    def add(self, y: Tensor, x: Tensor, rows: AdapterRows) -> None:
        """y [tokens, outputs] += what the adapters make of x [tokens, inputs]."""
        for slot, tokens in rows.each():
            y[tokens] += (x[tokens] @ self.a[slot].t()) @ self.b[slot].t()
