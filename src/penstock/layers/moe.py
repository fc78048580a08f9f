"""Sparse feed-forward layers: a router picks a few experts for each token (Shazeer et al. 2017;
Switch, Fedus et al. 2021; Mixtral, Jiang et al. 2024).

Tokens are sorted by expert, so that each expert multiplies all of its tokens at once; what a token
gets is added in the order of its own choice. So no token's result depends on the others'. Every
rank holds a part of each expert, as of a dense layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from penstock.attention.base import AdapterRows
from penstock.layers.linear import Linear
from penstock.layers.mlp import NAMES, GatedMLP
from penstock.layers.targets import Targets
from penstock.parallel.ranks import ALONE, RankGroup
from penstock.quant.base import LinearFormat
from penstock.quant.plain import PLAIN


@dataclass(frozen=True, slots=True)
class Experts:
    """What a family's sparse layers look like."""

    count: int
    size: int
    """of the inner layer of one expert"""
    top_k: int
    """experts that a token gets"""
    normalised: bool = True
    """the weights of the chosen experts sum to 1; else they are probabilities among all"""
    prefix: str = "mlp"
    """of the checkpoint's tensors, below a layer's"""
    names: tuple[str, str, str] = NAMES
    """of an expert's matrices: gate, up, down"""


def route(logits: Tensor, top_k: int, normalised: bool) -> tuple[Tensor, Tensor]:
    """logits [tokens, experts] -> weights float32 and experts int64 [tokens, top_k], by falling
    probability, equal ones by number."""
    ordered, order = logits.float().sort(dim=-1, descending=True, stable=True)
    shares = ordered.softmax(dim=-1)[:, :top_k]
    if normalised:
        shares = shares / shares.sum(dim=-1, keepdim=True)
    return shares, order[:, :top_k]


class MoE:
    """A router, whose matrix is never quantized, and its experts."""

    def __init__(
        self,
        hidden_size: int,
        experts: Experts,
        act: str,
        dtype: torch.dtype,
        device: torch.device,
        format: LinearFormat = PLAIN,
        ranks: RankGroup = ALONE,
    ) -> None:
        self.shape = experts
        self.gate = Linear(hidden_size, {"gate": experts.count}, False, dtype, device)
        self.experts = [
            GatedMLP(
                hidden_size, experts.size, act, False, dtype, device, format, ranks, experts.names
            )
            for _ in range(experts.count)
        ]
        self._ranks = ranks

    def __call__(self, x: Tensor, adapters: AdapterRows | None = None) -> Tensor:
        """x [tokens, hidden_size] -> the same shape. No adapter reaches experts. Waits for the
        device to tell how many tokens each expert got."""
        shape = self.shape
        weights, chosen = route(self.gate(x), shape.top_k, shape.normalised)
        order = chosen.flatten().argsort(stable=True)
        counts = chosen.flatten().bincount(minlength=shape.count).tolist()
        products = torch.empty(len(order), x.shape[1], dtype=x.dtype, device=x.device)
        for expert, at in zip(self.experts, torch.split(order, counts), strict=True):
            if len(at):
                inner = expert.inner(x[at // shape.top_k])
                products[at] = expert.down.matrix(inner, None)
        of_token = products.view(len(x), shape.top_k, -1).float()
        out = (of_token * weights[..., None]).sum(dim=1).to(x.dtype)
        self._ranks.all_reduce(out)
        return out

    def targets(self, prefix: str) -> Targets:
        """Below a layer's prefix."""
        where = f"{prefix}.{self.shape.prefix}"
        found = self.gate.targets(where)
        for i, expert in enumerate(self.experts):
            found |= expert.targets(f"{where}.experts.{i}")
        return found
