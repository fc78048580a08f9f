"""One attention layer against the same layer written out with dense matrices."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from penstock.attention.base import AttnBatch, GroupTables
from penstock.attention.torch_reference import TorchReference
from penstock.layers.attention import Attention, AttentionShape
from penstock.layers.rotary import Rope, Rotary

CPU = torch.device("cpu")
TOKENS = 11


def batch() -> AttnBatch:
    """One row of TOKENS tokens in block 1 of the group's second table."""
    table = torch.tensor([[1]], dtype=torch.int32)
    tables = GroupTables(table, torch.arange(16, 16 + TOKENS))
    wrong = GroupTables(table * 0, torch.empty(0, dtype=torch.int64))
    starts = torch.tensor([0, TOKENS], dtype=torch.int32)
    return AttnBatch(starts, starts[1:], (wrong, tables), [TOKENS], [TOKENS])


def dense(w: dict[str, Tensor], x: Tensor, shape: AttentionShape) -> Tensor:
    def heads(name: str) -> Tensor:
        out = F.linear(x, w[f"a.{name}_proj.weight"], w.get(f"a.{name}_proj.bias"))
        out = out.view(TOKENS, -1, shape.head_dim)
        if f"a.{name}_norm.weight" in w:
            assert shape.norm_eps is not None
            weight = w[f"a.{name}_norm.weight"] + shape.norm_offset
            dims = (-2, -1) if shape.norm_whole else -1
            out = out * (out.pow(2).mean(dims, keepdim=True) + shape.norm_eps).rsqrt()
            out = out * weight.view(-1, shape.head_dim)
        if shape.rotary and name != "v":
            positions = torch.arange(TOKENS)
            out = Rotary(Rope(), shape.head_dim, torch.float32, CPU)(positions)(out)
        return out.transpose(0, 1)

    at = torch.arange(TOKENS)
    mask = at[:, None] >= at
    if shape.window:
        mask &= at[:, None] - at < shape.window
    groups = shape.num_heads // shape.num_kv_heads
    k, v = (heads(name).repeat_interleave(groups, 0) for name in "kv")
    scale = shape.head_dim**-0.5 if shape.scale is None else shape.scale
    scores = heads("q") @ k.transpose(1, 2) * scale
    if shape.softcap:
        scores = shape.softcap * (scores / shape.softcap).tanh()
    out = scores.masked_fill(~mask, float("-inf")).softmax(-1) @ v
    out = out.transpose(0, 1).reshape(TOKENS, -1)
    return F.linear(out, w["a.o_proj.weight"], w.get("a.o_proj.bias"))


SHAPES = [
    AttentionShape(24, 4, 2, 6, group=1),
    AttentionShape(24, 4, 1, 10, qkv_bias=True, window=3, group=1),
    AttentionShape(24, 2, 2, 8, qkv_bias=True, out_bias=True, norm_eps=0.1, group=1),
    AttentionShape(24, 4, 2, 4, rotary=False, norm_eps=1e-6, group=1),
    AttentionShape(24, 4, 2, 4, norm_eps=1e-6, norm_whole=True, group=1),
    AttentionShape(24, 4, 2, 4, norm_eps=1e-6, norm_offset=1.0, scale=0.7, softcap=2.0, group=1),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_dense_layer(shape: AttentionShape) -> None:
    backend = TorchReference()
    layer = Attention(shape, backend, torch.float32, CPU)
    weights = {name: torch.randn(target.shape) for name, target in layer.targets("a").items()}
    for name, target in layer.targets("a").items():
        target.load(weights[name])
    cache = backend.allocate(2, 16, shape.num_kv_heads, shape.head_dim, torch.float32, CPU)
    rotation = Rotary(Rope(), shape.head_dim, torch.float32, CPU)(torch.arange(TOKENS))
    x = torch.randn(TOKENS, 24)
    out = layer(x, rotation, cache, batch())
    torch.testing.assert_close(out, dense(weights, x, shape), rtol=1e-4, atol=1e-4)
    assert not cache[0].any(), "the other group's block was written"
