"""Dense layers, several of which may share one matrix product."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from penstock.attention.base import AdapterRows
from penstock.errors import UnsupportedError
from penstock.layers.lora import Additions
from penstock.layers.targets import Target, Targets, fused
from penstock.parallel.ranks import ALONE, FLAG, RankGroup, Shard, entire
from penstock.quant.base import LinearFormat
from penstock.quant.plain import PLAIN


class Linear:
    """y = x W^T + b, for one or more named parts that read the same input.

    The parts' rows lie one after another in `matrix` [sum of part sizes, in_size], whose storage
    and product are the format's. `outliers` tells the format what enters: see LinearFormat.

    A rank may hold some rows of a part (its outputs are then its own), or all rows for some of the
    inputs (the products are then summed over the group).
    """

    def __init__(
        self,
        in_size: int | Shard,
        parts: Mapping[str, int | Shard],
        bias: bool,
        dtype: torch.dtype,
        device: torch.device,
        format: LinearFormat = PLAIN,
        ranks: RankGroup = ALONE,
        outliers: bool = False,
    ) -> None:
        """Raises UnsupportedError where the format's scales would straddle two ranks."""
        self.inputs = entire(in_size)
        self.parts = {name: entire(size) for name, size in parts.items()}
        _check_cut(self.inputs, format, ", ".join(parts))
        out_size = sum(part.count for part in self.parts.values())
        self.matrix = format.matrix(out_size, self.inputs.count, dtype, device, outliers)
        self.bias = torch.empty(out_size, dtype=dtype, device=device) if bias else None
        # Where products are summed, the bias joins one of them: None on the other ranks.
        self.added = None if self.inputs.partial and ranks.rank else self.bias
        self._ranks = ranks
        self._made = (dtype, device)
        self.additions: Additions | None = None

    def adapt(self, slots: int, rank: int, joined: str | None = None) -> None:
        """Make room for adapters: see Additions."""
        self.additions = Additions(self.parts, self.inputs, slots, rank, joined, *self._made)

    def __call__(self, x: Tensor, adapters: AdapterRows | None = None) -> Tensor:
        """x [tokens, this rank's inputs] -> [tokens, sum of this rank's part sizes]."""
        y = self.matrix(x, self.added)
        if adapters is not None and self.additions is not None:
            self.additions.add(y, x, adapters)
        if self.inputs.partial:
            self._ranks.all_reduce(y)
        return y

    def targets(self, prefix: str, joined: str | None = None) -> Targets:
        """`{prefix}.{part}.weight` and, with a bias, `.bias` for every part; or one tensor of the
        name `joined` with the rows of all parts, one after another."""
        found: Targets = {}
        start = 0
        for name, part in self.parts.items():
            place = self.matrix.place(start, part.count)
            found[f"{prefix}.{name}.weight"] = Target(place, parts=(part, self.inputs))
            if self.bias is not None:
                place = self.bias[start : start + part.count]
                found[f"{prefix}.{name}.bias"] = Target(place, parts=(part,))
            start += part.count
        if joined is not None:
            return {f"{prefix}.{joined}.weight": fused(list(found.values()))}
        return found


def _check_cut(inputs: Shard, format: LinearFormat, parts: str) -> None:
    size = format.group_size
    end = inputs.first + inputs.count
    if inputs.first % size or (end % size and end != inputs.whole):
        raise UnsupportedError(
            f"{FLAG} gives {parts} the inputs {inputs.first} to {end - 1} of {inputs.whole}, but "
            f"--quantization {format.name} has one scale for {size} of them, which cannot be cut.",
            cure="Use fewer ranks, or --quantization int8 or none.",
            param="tensor_parallel_size",
        )
