"""The decoder as recorded programs of CPU kernels: no Python between its layers.

Built from a loaded `Decoder`, whose weights are packed matrix by matrix and given up on the way,
so that a model is never held twice. The residual stream is float32 whatever the weights are; a
row's result does not depend on its batch, bit for bit (see kernels/cpu/program.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from penstock.attention.base import AttnBatch, Exchange
from penstock.attention.cpu import view
from penstock.kernels.cpu import pack
from penstock.kernels.cpu.ops import GATED, Batch, Epilogue, GroupTables, Rope, Routing
from penstock.kernels.cpu.pack import PackedWeight
from penstock.kernels.cpu.program import Program, pool
from penstock.layers.decoder import Decoder, DecoderPlan, Layer
from penstock.layers.embedding import Embedding
from penstock.layers.linear import Linear
from penstock.layers.lora import Additions, LowRank, Weights
from penstock.layers.mlp import GatedMLP
from penstock.layers.moe import MoE
from penstock.layers.norm import RMSNorm
from penstock.layers.store import UNKEPT, Store
from penstock.quant.base import Matrix, Table
from penstock.quant.int4 import Int4Matrix
from penstock.quant.int8 import Int8Matrix
from penstock.quant.plain import PlainMatrix

NOTHING = torch.empty(0, dtype=torch.int64)
NO_ROWS = torch.empty(0, dtype=torch.int32)


class NativeDecoder:
    """A CausalLM. Not thread-safe.

    max_tokens: most tokens of one step; max_rows: most rows whose logits are wanted at once;
    max_len: tokens of the longest request; threads: workers, the caller included (None: one for
    each physical core). store: of the prepared weights.
    """

    def __init__(
        self,
        decoder: Decoder,
        max_tokens: int,
        max_rows: int,
        max_len: int,
        threads: int | None = None,
        store: Store = UNKEPT,
    ) -> None:
        """Takes the decoder apart: it cannot be used afterwards."""
        plan, ranks = decoder.plan, decoder.ranks
        self.plan = plan
        self._own = decoder.own
        self.kv_groups = decoder.kv_groups
        self.num_kv_heads = decoder.num_kv_heads
        self.head_dim = plan.head_dim
        self.hidden_size = plan.hidden_size
        self.dtype = torch.float32
        self.vocab_size = plan.vocab_size
        self.max_positions = plan.max_positions
        self._ranks = ranks
        self._max_len = max_len
        self._max_rows = max_rows
        self._pool = pool(threads)
        self._act = decoder.dtype
        rotation = local = decoder.rotary.table(max_len)
        if decoder.local_rotary is not decoder.rotary:
            local = decoder.local_rotary.table(max_len)
        self._layers = [
            _PackedLayer(layer, *(local if layer.window else rotation), store)
            for layer in decoder.layers
        ]
        self._norm = _weight(decoder.norm, store)
        self._x = torch.empty(max_tokens, plan.hidden_size)
        self._hidden = torch.empty_like(self._x) if ranks.stage.last else self._x
        apart = ranks.size > 1 or plan.norms != "pre"
        self._partial = torch.empty_like(self._x) if apart else None
        """products to be summed over the ranks, or to be normalised before they are added"""
        self._no_ids = torch.zeros(max(max_tokens, max_rows), dtype=torch.int64)
        """rows are counted by ids, also where none are read"""
        self._pack_tables(decoder, store)
        store.finish()
        self._caches: list[Tensor] = []
        self._bodies: dict[tuple[bool, bool], _Body] = {}
        """for steps (with adapters, of which other ranks compute a part)"""
        slots = next((a.slots for layer in self._layers for a in layer.additions.values()), 0)
        self._slots = Routing.allocate(max_tokens, slots, 1, True) if slots else None
        """which tokens have the adapter of a slot"""
        self._low: dict[int, Tensor] = {}
        """by width: what lies between an adapter's two products"""

    def _record_head(self, head: Embedding, store: Store) -> None:
        self._rows = torch.empty(self._max_rows, self.hidden_size)
        self._logits = torch.empty(self._max_rows, head.ids.count)
        self._head = Program(self._pool, self._max_rows)
        self._head.linear(
            store.matrix(partial(_pack, head.table)),
            self._rows,
            self._logits,
            scale=self.plan.logit_scale,
            softcap=self.plan.logit_softcap,
        )

    def forward(
        self, x: Tensor, positions: Tensor, caches: list[Tensor], batch: AttnBatch
    ) -> Tensor:
        """See CausalLM.forward. The result is overwritten by the next step."""
        if caches is not self._caches:
            self._bodies, self._caches = {}, caches
        kind = (batch.adapters is not None, batch.exchange is not None)
        if kind not in self._bodies:
            self._bodies[kind] = self._record(caches, *kind)
        if batch.adapters is not None:
            assert self._slots is not None
            self._slots.tokens[: len(batch.adapters.tokens)] = batch.adapters.tokens
            self._slots.starts.copy_(torch.tensor(batch.adapters.starts))
        count = x.shape[0]
        residual, ids = self._x[:count], self._no_ids[:count]
        if self._table is None:
            residual.copy_(x)
        elif self._ranks.size == 1:
            ids = x
        else:
            self._look_up(x)
        groups = [GroupTables(g.block_tables, g.slot_mapping) for g in batch.groups]
        run = Batch(ids, positions, batch.query_start, batch.seq_lens, NOTHING, groups)
        body = self._bodies[kind]
        for index, program in enumerate(body.programs):
            if index in body.writers:
                assert batch.exchange is not None
                self._write_all(body, index, count, batch.exchange)
            elif index:
                assert self._partial is not None
                self._ranks.all_reduce(self._partial[:count])
                if self.plan.norms == "pre":
                    residual += self._partial[:count]
            program.run(run)
        return self._hidden[:count]

    def _write_all(self, body: _Body, index: int, count: int, exchange: Exchange) -> None:
        """Rotate and store the keys and values of all ranks' tokens."""
        found = exchange.gather(body.qkv[:count, -body.kv.shape[1] :])
        body.kv[: len(found)] = found
        groups = [GroupTables(NO_ROWS, places) for places in exchange.slot_mappings]
        ids = self._no_ids[: len(found)]
        run = Batch(ids, exchange.positions, NO_ROWS, NO_ROWS, NOTHING, groups)
        body.writers[index].run(run)

    def _pack_tables(self, decoder: Decoder, store: Store) -> None:
        """The token table and the head, which may be one."""
        embed, head = decoder.embed, decoder.head
        decoder.embed = decoder.head = None
        self._table: PackedWeight | None = None
        if embed is not None:
            self._ids = embed.ids
            make = partial(_pack, embed.table)
            self._table = store.matrix(make, looked_up=head is not embed)
            self._multiplier = embed.scale
            if self._ranks.size > 1:
                self._lookup = Program(self._pool, len(self._x), 1)
                self._lookup.embed(self._table, self._x, self._multiplier)
        if head is not None:
            packed = self._table if head is embed else None
            packed = packed or store.matrix(partial(_pack, head.table))
            self._rows = torch.empty(self._max_rows, self.hidden_size)
            self._logits = torch.empty(self._max_rows, head.ids.count)
            self._head = Program(self._pool, self._max_rows)
            scale, softcap = self.plan.logit_scale, self.plan.logit_softcap
            self._head.linear(packed, self._rows, self._logits, scale=scale, softcap=softcap)

    def _look_up(self, ids: Tensor) -> None:
        """The rows of ids that this rank has, and zeros, summed over the ranks: to the residual."""
        own = ids - self._ids.first
        missing = (own < 0) | (own >= self._ids.count)
        own.masked_fill_(missing, 0)
        self._lookup.run(Batch(own, NOTHING, NO_ROWS, NO_ROWS, NOTHING))
        residual = self._x[: len(ids)]
        residual.masked_fill_(missing[:, None], 0.0)
        self._ranks.all_reduce(residual)

    def logits(self, hidden: Tensor) -> Tensor:
        """See CausalLM.logits. Up to max_rows rows, the result is overwritten by the next call."""
        count = hidden.shape[0]
        if count > self._max_rows:
            return torch.cat(
                [self.logits(part).clone() for part in torch.split(hidden, self._max_rows)]
            )
        self._rows[:count] = hidden
        self._head.run(Batch(self._no_ids[:count], NOTHING, NO_ROWS, NO_ROWS, NOTHING))
        return self._ranks.gather_columns(self._logits[:count], self.vocab_size)

    def set_adapter(self, slot: int, weights: Weights) -> None:
        """See Decoder.set_adapter."""
        for i, layer in zip(self._own, self._layers, strict=True):
            for additions in layer.additions.values():
                additions.store(slot, weights.get(i, {}))

    def _record(self, caches: list[Tensor], adapted: bool, parted: bool) -> _Body:
        """adapted: some tokens have an adapter; parted: other ranks compute other tokens."""
        plan, tokens, x = self.plan, len(self._x), self._x
        heads, dim = self._layers[0].heads, plan.head_dim
        qkv = torch.empty(tokens, (heads + 2 * self.num_kv_heads) * dim)
        q = torch.empty(tokens, heads * dim)
        attended = torch.empty(tokens, heads * dim, dtype=self._act)
        eps = plan.norm_eps
        inner = _Inner(self._layers, plan, tokens, self._act, adapted)
        kv_all = torch.empty(tokens if parted else 0, 2 * self.num_kv_heads * dim)
        body, writers = [Program(self._pool, tokens, 1)], dict[int, Program]()
        if self._table is not None and self._ranks.size == 1:
            body[0].embed(self._table, x, self._multiplier)
        for layer, cache in zip(self._layers, caches, strict=True):
            kv = view(cache)
            body[-1].linear(layer.qkv, x, qkv, layer.norm_in, eps)
            if adapted:
                self._adapt(body[-1], layer.additions["qkv"], x, qkv, layer.norm_in)
            for columns, weight in layer.whole_norms:
                body[-1].norm(qkv[:, columns], weight, eps, qkv[:, columns])
            if parted:
                writer = writers[len(body)] = Program(self._pool, tokens, 1)
                writer.rope(kv_all, None, kv, layer.rope, layer.group)
                body.append(Program(self._pool, tokens, 1))
            body[-1].rope(qkv, q, kv, layer.rope, layer.group)
            body[-1].attention(
                q,
                attended,
                kv,
                layer.scale,
                self._max_len,
                layer.window,
                plan.attention_softcap,
                layer.group,
            )
            low = layer.additions if adapted else {}
            self._add(body, layer.out, attended, layer.norm_attention, low.get("out"))
            if layer.experts is None:
                gated, norm = GATED[plan.act], layer.norm_mid
                if adapted:
                    body[-1].linear(layer.gate_up, x, inner.gates, norm, eps)
                    self._adapt(body[-1], low["gate_up"], x, inner.gates, norm)
                    body[-1].gate(inner.gates, inner.dense, gated)
                else:
                    body[-1].linear(layer.gate_up, x, inner.dense, norm, eps, gated)
                source = inner.dense[:, : layer.mlp_size]
                self._add(body, layer.down, source, layer.norm_mlp, low.get("down"))
            else:
                self._add_experts(body, layer, layer.experts, inner)
        if self._norm is not None:
            body[-1].norm(x, self._norm, eps, self._hidden)
        return _Body(body, writers, qkv, kv_all)

    def _adapt(
        self,
        program: Program,
        additions: _PackedAdditions,
        source: Tensor,
        out: Tensor,
        norm: Tensor | None = None,
        scale: float = 1.0,
    ) -> None:
        """Add what adapters make of normalised rows to `out`."""
        slots, eps = self._slots, self.plan.norm_eps
        assert slots is not None
        width = additions.width
        low = self._low.setdefault(width, torch.empty(len(self._x), width))
        program.experts(additions.a, source, low, slots, True, norm, eps)
        program.experts(additions.b, low, out, slots, False, None, 0.0, Epilogue.ADD, scale, True)

    def _add(
        self,
        body: list[Program],
        weight: PackedWeight,
        source: Tensor,
        norm: Tensor | None,
        additions: _PackedAdditions | None,
    ) -> None:
        """Add a product to the residual stream, over all ranks and normalised where wanted."""
        scale = self.plan.residual_scale
        alone = self._partial is None
        out = self._x if self._partial is None else self._partial
        epilogue = Epilogue.ADD if alone else Epilogue.STORE
        body[-1].linear(weight, source, out, epilogue=epilogue, scale=scale)
        if additions is not None:
            self._adapt(body[-1], additions, source, out, scale=scale)
        if not alone:
            self._add_partial(body, norm)

    def _add_partial(self, body: list[Program], norm: Tensor | None) -> None:
        if self._ranks.size > 1:
            body.append(Program(self._pool, len(self._x), 1))
        if norm is not None:
            assert self._partial is not None
            body[-1].norm(self._partial, norm, self.plan.norm_eps, self._x, add=True)

    def _add_experts(
        self, body: list[Program], layer: _PackedLayer, experts: _PackedExperts, inner: _Inner
    ) -> None:
        """The same of a sparse layer."""
        program, plan, x = body[-1], self.plan, self._x
        norm, eps = layer.norm_mid, plan.norm_eps
        assert inner.routing is not None
        assert plan.experts is not None
        pairs = inner.pairs
        program.linear(experts.gate, x, inner.router, norm, eps)
        program.route(inner.router, inner.routing)
        program.experts(experts.gate_up, x, pairs, inner.routing, True, norm, eps, GATED[plan.act])
        program.experts(
            experts.down, pairs[:, : experts.size], inner.products, inner.routing, of_tokens=False
        )
        if self._partial is None:
            program.combine(inner.products, inner.routing, x, plan.residual_scale, add=True)
            return
        program.combine(inner.products, inner.routing, self._partial, plan.residual_scale)
        self._add_partial(body, layer.norm_mlp)


class _Body(NamedTuple):
    """A model's layers, one program for each run of ops between two exchanges with other ranks."""

    programs: list[Program]
    writers: dict[int, Program]
    """index of a program -> what stores all ranks' keys and values before it; before all others
    but the first, products are summed over the ranks"""
    qkv: Tensor
    kv: Tensor
    """of the tokens of all ranks, where there are writers"""


class _Inner:
    """Buffers of the feed-forward layers, dense and sparse, which all layers share."""

    def __init__(
        self,
        layers: list[_PackedLayer],
        plan: DecoderPlan,
        tokens: int,
        dtype: torch.dtype,
        adapted: bool,
    ) -> None:
        size = max((layer.mlp_size for layer in layers if layer.experts is None), default=0)
        self.dense = torch.empty(tokens if size else 0, -(-size // 16) * 16, dtype=dtype)
        self.gates = torch.empty(len(self.dense) if adapted else 0, 2 * self.dense.shape[1])
        """gates and ups of a dense layer, where adapters add to them"""
        self.routing: Routing | None = None
        if plan.experts is None:
            return
        count, top_k = plan.experts.count, plan.experts.top_k
        size = max((layer.experts.size for layer in layers if layer.experts is not None), default=0)
        pairs = tokens * top_k if size else 0
        self.routing = Routing.allocate(tokens, count, top_k, plan.experts.normalised)
        self.router = torch.empty(tokens, count)
        self.pairs = torch.empty(pairs, -(-size // 16) * 16, dtype=dtype)
        self.products = torch.empty(pairs, plan.hidden_size)


class _PackedLayer:
    """A layer's weights in the kernels' layout."""

    def __init__(self, layer: Layer, cos: Tensor, sin: Tensor, store: Store) -> None:
        attention, mlp = layer.attention, layer.mlp
        shape = attention.shape
        self.window, self.group = shape.window, shape.group
        self.heads, self.scale = attention.num_heads, shape.score_scale
        q_norm = k_norm = None
        self.whole_norms: list[tuple[slice, Tensor]] = []
        """of queries and keys over all heads at once: columns, weight"""
        if attention.norm is not None and shape.norm_whole:
            weight = store.tensor(attention.norm.float).flatten()
            size = self.heads * shape.head_dim
            self.whole_norms = [
                (columns, weight[columns]) for columns in (slice(size), slice(size, len(weight)))
            ]
        elif attention.norm is not None:
            q_norm, k_norm = (store.tensor(attention.norm[i].float) for i in (0, -1))
        if not shape.rotary:
            cos = sin = None  # type: ignore[assignment]
        self.rope = Rope(cos, sin, q_norm, k_norm, shape.norm_eps or 0.0)
        norms = (layer.norm_in, layer.norm_attention, layer.norm_mid, layer.norm_mlp)
        kept = [_weight(norm, store) for norm in norms]
        self.norm_in, self.norm_attention, self.norm_mid, self.norm_mlp = kept
        self.additions = {
            name: _PackedAdditions(linear.additions, interleaved=name == "gate_up")
            for name, linear in layer.linears.items()
            if linear.additions is not None
        }
        """of adapters, where the model has room for some"""
        self.qkv = _pack_linear(attention.qkv, store)
        self.out = _pack_linear(attention.out, store)
        del attention.qkv, attention.out
        self.experts: _PackedExperts | None = None
        if isinstance(mlp, MoE):
            self.experts = _PackedExperts(mlp, store)
            return
        self.mlp_size = mlp.down.inputs.count
        self.gate_up, self.down = _pack_mlp(mlp, store)


class _PackedAdditions:
    """Slots for the adapters of one linear layer, in float32 and the kernels' layout."""

    def __init__(self, additions: Additions, interleaved: bool) -> None:
        self.slots, self.width = additions.slots, additions.width
        self._of, self._interleaved = additions, interleaved
        a, b = self._packed({})
        self.a = [replace(a, data=a.data.clone()) for _ in range(self.slots)]
        self.b = [replace(b, data=b.data.clone()) for _ in range(self.slots)]
        del additions.a, additions.b

    def store(self, slot: int, found: Mapping[str, LowRank]) -> None:
        """In place: programs know addresses."""
        a, b = self._packed(found)
        self.a[slot].data.copy_(a.data)
        self.b[slot].data.copy_(b.data)

    def _packed(self, found: Mapping[str, LowRank]) -> tuple[PackedWeight, PackedWeight]:
        a, b = self._of.matrices(found)
        if self._interleaved:
            b = pack.interleave(*b.chunk(2))
        return pack.pack_float(a), pack.pack_float(b)


class _PackedExperts:
    """A sparse layer's weights in the kernels' layout."""

    def __init__(self, moe: MoE, store: Store) -> None:
        self.size = moe.experts[0].down.inputs.count
        self.gate = _pack_linear(moe.gate, store)
        packed = [_pack_mlp(expert, store) for expert in moe.experts]
        self.gate_up = [gate_up for gate_up, _ in packed]
        self.down = [down for _, down in packed]


def _weight(norm: RMSNorm | None, store: Store) -> Tensor | None:
    return None if norm is None else store.tensor(norm.weight.float)


def _pack_mlp(mlp: GatedMLP, store: Store) -> tuple[PackedWeight, PackedWeight]:
    """gate and up, and down; the module gives them up."""
    gate_up = _pack_linear(mlp.gate_up, store, interleaved=True)
    down = _pack_linear(mlp.down, store)
    del mlp.gate_up, mlp.down
    return gate_up, down


def _pack_linear(linear: Linear, store: Store, interleaved: bool = False) -> PackedWeight:
    return store.matrix(partial(_pack, linear.matrix, linear.added, interleaved))


def _pack(
    matrix: Matrix | Table, bias: Tensor | None = None, interleaved: bool = False
) -> PackedWeight:
    """interleaved: the two halves of the rows are gates and ups (see pack.interleave)."""

    def order(rows: Tensor) -> Tensor:
        return pack.interleave(*rows.chunk(2)) if interleaved else rows

    ordered_bias = None if bias is None else order(bias)
    if isinstance(matrix, PlainMatrix):
        return pack.pack_float(order(matrix.values), ordered_bias)
    if isinstance(matrix, Int8Matrix):
        scales = order(matrix.scales)
        return pack.pack_int8(order(matrix.values), scales, ordered_bias, matrix.parts)
    assert isinstance(matrix, Int4Matrix)
    levels = torch.cat((matrix.values & 15, matrix.values >> 4), dim=-1).flatten(1)
    levels = levels[:, : matrix.size]
    return pack.pack_int4(order(levels), order(matrix.scales), ordered_bias, matrix.parts)
