"""The kernels' ops in plain torch: same names, same arguments, same results within rounding.

Each function is an op of `program.Program` that runs at once. The tests hold the kernels to them.
Integer formats agree bit for bit where no norm stands before them: the quantization is the same
arithmetic and the sums are exact.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import gelu, silu

from penstock.kernels.cpu.ops import Batch, Epilogue, KVCache, Rope, Routing
from penstock.kernels.cpu.pack import GROUP, Format, PackedWeight, unpack
from penstock.kernels.rotation import rotate

LEAST = 2.0**-120
"""Rows without a greater magnitude are quantized to zeros."""


def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """float32 [..., size] -> the same shape; no norm without a weight."""
    if weight is None:
        return x
    return x * (1.0 / (x.square().mean(-1, keepdim=True) + eps).sqrt()) * weight


def quantize(x: Tensor) -> tuple[Tensor, Tensor]:
    """float32 [..., size] -> int8 of the same shape, float32 scales [..., 1]; symmetric by row."""
    amax = x.abs().amax(-1, keepdim=True)
    # A tensor over a tensor: torch divides a number by one through its reciprocal.
    inverse = torch.where(amax > LEAST, torch.full_like(amax, 127.0) / amax, 0.0)
    return (x * inverse).round().to(torch.int8), amax / 127.0


def linear(
    weight: PackedWeight,
    x: Tensor,
    out: Tensor,
    norm: Tensor | None = None,
    eps: float = 0.0,
    epilogue: Epilogue = Epilogue.STORE,
    scale: float = 1.0,
    softcap: float = 0.0,
) -> None:
    """See Program.linear."""
    y = product(weight, rms_norm(x.float(), norm, eps))
    if weight.bias is not None:
        y = y + weight.bias[: weight.n]
    if epilogue in (Epilogue.SILU_MUL, Epilogue.GELU_MUL):
        gate, up = y.view(len(y), -1, 2, 16).unbind(2)
        act = silu(gate) if epilogue == Epilogue.SILU_MUL else gelu(gate, approximate="tanh")
        out.copy_((act * up).flatten(1))
        return
    y = y * scale
    if softcap:
        y = softcap * torch.tanh(y / softcap)
    out.copy_(out.float() + y if epilogue == Epilogue.ADD else y)


def product(weight: PackedWeight, x: Tensor) -> Tensor:
    """x float32 [rows, k] -> float32 [rows, n]."""
    if weight.format == Format.FLOAT32:
        return x @ unpack(weight).T
    if weight.format == Format.BFLOAT16:
        return x.bfloat16().float() @ unpack(weight).T
    q, scale = quantize(rotate(x, weight.parts))
    assert weight.scales is not None
    if weight.format == Format.INT8:
        ones = torch.ones_like(weight.scales)
        integers = unpack(PackedWeight(Format.INT8, weight.n, weight.k, weight.data, ones))
        sums = (q.double() @ integers.double().T).float()  # exact
        return sums * scale * weight.scales[: weight.n]
    return _grouped(weight, q) * scale


def _grouped(weight: PackedWeight, q: Tensor) -> Tensor:
    """Sums of exact groups times their scales, in order."""
    assert weight.scales is not None
    ones = torch.ones_like(weight.scales)
    integers = unpack(PackedWeight(Format.INT4, weight.n, weight.k, weight.data, ones)).double()
    scales = weight.scales.transpose(1, 2).flatten(0, 1)[: weight.n].float()
    total = torch.zeros(q.shape[0], weight.n)
    for g, start in enumerate(range(0, weight.k, GROUP)):
        part = slice(start, start + GROUP)
        sums = (q[:, part].double() @ integers[:, part].T).float()
        # float64 keeps the product whole, as a fused multiply-add does.
        total = (total.double() + sums.double() * scales[:, g].double()).float()
    return total


def norm(x: Tensor, weight: Tensor, eps: float, out: Tensor, add: bool = False) -> None:
    """See Program.norm."""
    y = rms_norm(x, weight, eps)
    out.copy_(out.float() + y if add else y)


def route(logits: Tensor, routing: Routing) -> None:
    """See Program.route."""
    count, experts = logits.shape
    ordered, order = logits.sort(dim=1, descending=True, stable=True)
    shares = ordered.softmax(1)[:, : routing.top_k]
    if routing.normalised:
        shares = shares / shares.sum(1, keepdim=True)
    routing.weights[:count] = shares
    chosen = order[:, : routing.top_k].flatten()
    pairs = chosen.argsort(stable=True)
    routing.tokens[: len(pairs)] = pairs // routing.top_k
    routing.places[:count].view(-1)[pairs] = torch.arange(len(pairs), dtype=torch.int32)
    ends = chosen.bincount(minlength=experts).cumsum(0)
    routing.starts.copy_(torch.cat((torch.zeros(1), ends)))


def experts(
    weights: list[PackedWeight],
    x: Tensor,
    out: Tensor,
    routing: Routing,
    of_tokens: bool,
    norm: Tensor | None = None,
    eps: float = 0.0,
    epilogue: Epilogue = Epilogue.STORE,
    scale: float = 1.0,
    to_tokens: bool = False,
) -> None:
    """See Program.experts."""
    starts = routing.starts.tolist()
    for weight, first, last in zip(weights, starts, starts[1:], strict=False):
        tokens, pairs = routing.tokens[first:last], torch.arange(first, last)
        target = tokens if to_tokens else pairs
        rows = out[target]
        linear(weight, x[tokens if of_tokens else pairs], rows, norm, eps, epilogue, scale)
        out[target] = rows


def gate(x: Tensor, out: Tensor, act: Epilogue) -> None:
    """See Program.gate."""
    gate, up = x.view(len(x), -1, 2, 16).unbind(2)
    found = silu(gate) if act == Epilogue.SILU_MUL else gelu(gate, approximate="tanh")
    out.copy_((found * up).flatten(1))


def combine(
    x: Tensor, routing: Routing, out: Tensor, scale: float = 1.0, add: bool = False
) -> None:
    """See Program.combine."""
    count = len(out)
    pairs = x[routing.places[:count].long()]
    y = (pairs * (routing.weights[:count] * scale)[..., None]).sum(1)
    out.copy_(out + y if add else y)


def embed(
    table: Tensor,
    ids: Tensor,
    out: Tensor,
    scales: Tensor | None = None,
    multiplier: float = 1.0,
    parts: int = 1,
) -> None:
    """See Program.embed."""
    rows = table[ids].float()
    factor = multiplier if scales is None else scales[ids][:, None] * multiplier
    out.copy_(rotate(rows * factor, parts))


def rope(
    qkv: Tensor, q: Tensor | None, cache: KVCache, rope: Rope, batch: Batch, group: int = 0
) -> None:
    """See Program.rope."""
    kv = cache.num_kv_heads
    heads = qkv.view(len(qkv), -1, cache.head_dim).clone()
    num_q = heads.shape[1] - 2 * kv
    heads[:, :num_q] = rms_norm(heads[:, :num_q], rope.q_norm, rope.norm_eps)
    heads[:, num_q:-kv] = rms_norm(heads[:, num_q:-kv], rope.k_norm, rope.norm_eps)
    if rope.cos is not None and rope.sin is not None:
        half = rope.cos.shape[1]
        cos, sin = rope.cos[batch.positions, None], rope.sin[batch.positions, None]
        a, b = heads[:, :-kv, :half].clone(), heads[:, :-kv, half : 2 * half].clone()
        heads[:, :-kv, :half] = a * cos - b * sin
        heads[:, :-kv, half : 2 * half] = b * cos + a * sin
    if q is not None:
        q.copy_(heads[:, :num_q].flatten(1))
    write(cache, heads[:, num_q:-kv], heads[:, -kv:], batch.groups[group].slots)


def views(cache: KVCache) -> tuple[Tensor, Tensor, Tensor | None]:
    """Keys [blocks, kv heads, block_size / 16, head_dim / u, 16, u], values [blocks, kv heads,
    block_size / p, head_dim, p] and int8's scales [blocks, kv heads, 2, block_size]: see cache.h.
    """
    blocks, heads, size, dim = (
        cache.data.shape[0],
        cache.num_kv_heads,
        cache.block_size,
        cache.head_dim,
    )
    by_head = cache.data.view(torch.uint8).view(blocks, heads, -1)
    part = size * dim * cache.dtype.itemsize
    pair = 1 if cache.dtype == torch.float32 else 2
    twin = 2 if cache.dtype == torch.bfloat16 else 1
    typed = by_head[:, :, : 2 * part].view(cache.dtype)
    in_keys, in_values = (size // 16, dim // pair, 16, pair), (size // twin, dim, twin)
    keys = typed[:, :, : size * dim].view(blocks, heads, *in_keys)
    values = typed[:, :, size * dim :].view(blocks, heads, *in_values)
    scales = None
    if cache.dtype == torch.int8:
        scales = by_head[:, :, 2 * part :].view(torch.float32).view(blocks, heads, 2, size)
    return keys, values, scales


def write(cache: KVCache, k: Tensor, v: Tensor, slots: Tensor) -> None:
    """k and v float32 [tokens, kv heads, head_dim] to their slots."""
    keys, values, scales = views(cache)
    block, offset = slots // cache.block_size, slots % cache.block_size
    if scales is not None:
        k, k_scale = quantize(k)
        v, v_scale = quantize(v)
        scales[block, :, 0, offset] = k_scale[..., 0]
        scales[block, :, 1, offset] = v_scale[..., 0]
    split = k.to(cache.dtype).view(*k.shape[:2], -1, keys.shape[-1])
    keys[block, :, offset // 16, :, offset % 16] = split
    twin = values.shape[-1]
    values[block, :, offset // twin, :, offset % twin] = v.to(cache.dtype)


def read(cache: KVCache) -> tuple[Tensor, Tensor]:
    """Keys and values float32 [blocks, block_size, kv heads, head_dim]."""
    keys, values, scales = views(cache)
    k = keys.permute(0, 2, 4, 1, 3, 5).flatten(1, 2).flatten(3).float()
    v = values.permute(0, 2, 4, 1, 3).flatten(1, 2).float()
    if scales is not None:
        k = k * scales[:, :, 0].transpose(1, 2)[..., None]
        v = v * scales[:, :, 1].transpose(1, 2)[..., None]
    return k, v


def attention(
    q: Tensor,
    out: Tensor,
    cache: KVCache,
    scale: float,
    batch: Batch,
    window: int = 0,
    softcap: float = 0.0,
    group: int = 0,
) -> None:
    """See Program.attention. float32 throughout, over what the cache holds."""
    k, v = read(cache)
    kv, dim = cache.num_kv_heads, cache.head_dim
    starts = batch.query_start.tolist()
    for row, keys in enumerate(batch.seq_lens.tolist()):
        part = slice(starts[row], starts[row + 1])
        queries = q[part].view(starts[row + 1] - starts[row], kv, -1, dim)
        first = max(0, keys - len(queries) - window + 1) if window else 0
        table = batch.groups[group].block_tables[row]
        places = torch.arange(first, keys)
        at = table[places // cache.block_size].long(), places % cache.block_size
        scores = torch.einsum("qhgd,khd->hgqk", queries, k[at]) * scale
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        position = torch.arange(keys - len(queries), keys)[:, None]
        hidden = places > position
        if window:
            hidden |= places <= position - window
        weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        out[part] = torch.einsum("hgqk,khd->qhgd", weights, v[at]).flatten(1).to(out.dtype)


def argmax(logits: Tensor, ids: Tensor, maxima: Tensor) -> None:
    """See Program.argmax."""
    top, found = logits.max(1)
    maxima.copy_(top)
    ids.copy_(torch.where(top.isfinite() & ~logits.isnan().any(1), found, -1))
