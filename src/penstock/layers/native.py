"""The pre-norm decoder as recorded programs of CPU kernels: no Python between its layers.

Built from a loaded `Decoder`, whose weights are packed matrix by matrix and given up on the way,
so that a model is never held twice. The residual stream is float32 whatever the weights are; a
row's result does not depend on its batch, bit for bit (see kernels/cpu/program.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from penstock.attention.base import AttnBatch, Exchange
from penstock.attention.cpu import view
from penstock.kernels.cpu import pack
from penstock.kernels.cpu.ops import Batch, Epilogue, GroupTables, Rope
from penstock.kernels.cpu.pack import PackedWeight
from penstock.kernels.cpu.program import Program, pool
from penstock.layers.decoder import Decoder, Layer
from penstock.layers.linear import Linear
from penstock.quant.base import Matrix, Table
from penstock.quant.int4 import Int4Matrix
from penstock.quant.int8 import Int8Matrix
from penstock.quant.plain import PlainMatrix

if TYPE_CHECKING:
    from penstock.kernels.cpu import _native

NOTHING = torch.empty(0, dtype=torch.int64)
NO_ROWS = torch.empty(0, dtype=torch.int32)
SUM = -1
_Body = list[tuple[Program, int | None]]
"""Programs, each with what follows: SUM = add products over the ranks; i = gather the keys and
values of layer i; None = nothing."""


class NativeDecoder:
    """A CausalLM. Not thread-safe.

    max_tokens: most tokens of one step; max_rows: most rows whose logits are wanted at once;
    max_len: tokens of the longest request; threads: workers, the caller included (None: one for
    each physical core).
    """

    def __init__(
        self,
        decoder: Decoder,
        max_tokens: int,
        max_rows: int,
        max_len: int,
        threads: int | None = None,
    ) -> None:
        """Takes the decoder apart: it cannot be used afterwards."""
        plan, ranks = decoder.plan, decoder.ranks
        self.plan = plan
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
        rotation = decoder.rotary.table(max_len)
        self._layers = [_PackedLayer(layer, *rotation) for layer in decoder.layers]
        self._embed = decoder.embed
        self._norm = None if decoder.norm is None else decoder.norm.weight.float()
        self._x = torch.empty(max_tokens, plan.hidden_size)
        self._hidden = torch.empty_like(self._x) if ranks.stage.last else self._x
        self._partial = torch.empty_like(self._x) if ranks.size > 1 else None
        """products to be summed over the ranks"""
        self._no_ids = torch.zeros(max(max_tokens, max_rows), dtype=torch.int64)
        """rows are counted by ids, also where none are read"""
        if decoder.head is not None:
            self._rows = torch.empty(max_rows, plan.hidden_size)
            self._logits = torch.empty(max_rows, decoder.head.ids.count)
            self._head = Program(self._pool, max_rows)
            self._head.linear(_pack(decoder.head.table), self._rows, self._logits)
        self._caches: list[Tensor] = []
        self._whole: _Body = []
        self._parted: _Body = []
        """the same where other ranks compute other tokens of the step"""
        self._writers: list[Program] = []
        """by layer, of the keys and values of all ranks"""

    def forward(
        self, x: Tensor, positions: Tensor, caches: list[Tensor], batch: AttnBatch
    ) -> Tensor:
        """See CausalLM.forward. The result is overwritten by the next step."""
        if caches is not self._caches:
            self._record(caches)
        count = len(x)
        residual, ids = self._x[:count], self._no_ids[:count]
        if self._looks_up:
            ids = x
        else:
            residual.copy_(x if self._embed is None else self._embed(x))
        groups = [GroupTables(g.block_tables, g.slot_mapping) for g in batch.groups]
        run = Batch(ids, positions, batch.query_start, batch.seq_lens, NOTHING, groups)
        for program, then in self._whole if batch.exchange is None else self._parted:
            program.run(run)
            if then == SUM:
                assert self._partial is not None
                self._ranks.all_reduce(self._partial[:count])
                residual += self._partial[:count]
            elif then is not None:
                assert batch.exchange is not None
                self._write_all(then, count, batch.exchange)
        return self._hidden[:count]

    def _write_all(self, layer: int, count: int, exchange: Exchange) -> None:
        """Rotate and store the keys and values of all ranks' tokens."""
        width = self._kv.shape[1]
        found = exchange.gather(self._qkv[:count, -width:])
        self._kv[: len(found)] = found
        groups = [GroupTables(NO_ROWS, places) for places in exchange.slot_mappings]
        ids = self._no_ids[: len(found)]
        run = Batch(ids, exchange.positions, NO_ROWS, NO_ROWS, NOTHING, groups)
        self._writers[layer].run(run)

    @property
    def _looks_up(self) -> bool:
        """Whether the program itself reads the token table, which is then here as a whole."""
        return self._embed is not None and self._ranks.size == 1

    def logits(self, hidden: Tensor) -> Tensor:
        """See CausalLM.logits. Up to max_rows rows, the result is overwritten by the next call."""
        count = len(hidden)
        if count > self._max_rows:
            return torch.cat(
                [self.logits(part).clone() for part in torch.split(hidden, self._max_rows)]
            )
        self._rows[:count] = hidden
        self._head.run(Batch(self._no_ids[:count], NOTHING, NO_ROWS, NO_ROWS, NOTHING))
        return self._ranks.gather_columns(self._logits[:count], self.vocab_size)

    def _record(self, caches: list[Tensor]) -> None:
        tokens, dim = len(self._x), self.plan.head_dim
        layer = self._layers[0]
        self._caches = caches
        self._qkv = torch.empty(tokens, (layer.heads + 2 * self.num_kv_heads) * dim)
        self._q = torch.empty(tokens, layer.heads * dim)
        self._attended = torch.empty(tokens, layer.heads * dim, dtype=self._act)
        self._mlp = torch.empty(tokens, -(-layer.mlp_size // 16) * 16, dtype=self._act)
        self._whole = self._programs(caches, parted=False)
        if self._ranks.parts > 1:
            self._kv = torch.empty(tokens, 2 * self.num_kv_heads * dim)
            self._parted = self._programs(caches, parted=True)
            self._writers = [Program(self._pool, tokens, 1) for _ in caches]
            for writer, layer, cache in zip(self._writers, self._layers, caches, strict=True):
                writer.rope(self._kv, None, view(cache), layer.rope, layer.group)

    def _programs(self, caches: list[Tensor], parted: bool) -> _Body:
        """parted: stop before the attention of each layer for what other ranks have."""
        plan, x, qkv = self.plan, self._x, self._qkv
        scale, eps = plan.head_dim**-0.5, plan.norm_eps
        body = _Recorder(self._pool, len(x))
        if self._looks_up:
            assert self._embed is not None
            _embed(body.program, self._embed.table, x)
        for index, (layer, cache) in enumerate(zip(self._layers, caches, strict=True)):
            kv, mlp_size = view(cache), layer.mlp_size
            body.program.linear(layer.qkv, x, qkv, layer.norm_in, eps)
            if parted:
                body.cut(index)
            body.program.rope(qkv, self._q, kv, layer.rope, layer.group)
            body.program.attention(
                *(self._q, self._attended, kv, scale, self._max_len, layer.window),
                group=layer.group,
            )
            self._add(body, layer.out, self._attended)
            body.program.linear(layer.gate_up, x, self._mlp, layer.norm_mid, eps, Epilogue.SILU_MUL)
            self._add(body, layer.down, self._mlp[:, :mlp_size])
        if self._norm is not None:
            body.program.norm(x, self._norm, eps, self._hidden)
        return [*body.done, (body.program, None)]

    def _add(self, body: _Recorder, weight: PackedWeight, source: Tensor) -> None:
        """Add a product to the residual stream, over all ranks."""
        if self._partial is None:
            body.program.linear(weight, source, self._x, epilogue=Epilogue.ADD)
        else:
            body.program.linear(weight, source, self._partial)
            body.cut(SUM)


class _Recorder:
    """Programs, and what is done between them."""

    def __init__(self, pool: _native.Pool, tokens: int) -> None:
        self._pool, self._tokens = pool, tokens
        self.done: _Body = []
        self.program = Program(pool, tokens, 1)

    def cut(self, then: int) -> None:
        self.done.append((self.program, then))
        self.program = Program(self._pool, self._tokens, 1)


class _PackedLayer:
    """A layer's weights in the kernels' layout."""

    def __init__(self, layer: Layer, cos: Tensor, sin: Tensor) -> None:
        attention, mlp = layer.attention, layer.mlp
        shape = attention.shape
        self.window, self.group = shape.window, shape.group
        self.heads, self.mlp_size = attention.num_heads, mlp.down.inputs.count
        q_norm = k_norm = None
        if attention.norm is not None:
            q_norm, k_norm = (attention.norm[i].float().contiguous() for i in (0, -1))
        if not shape.rotary:
            cos = sin = None  # type: ignore[assignment]
        self.rope = Rope(cos, sin, q_norm, k_norm, shape.norm_eps or 0.0)
        self.norm_in = layer.norm_in.weight.float()
        self.norm_mid = layer.norm_mid.weight.float()
        self.qkv = _pack_linear(attention.qkv)
        self.out = _pack_linear(attention.out)
        del attention.qkv, attention.out
        self.gate_up = _pack_linear(mlp.gate_up, interleaved=True)
        self.down = _pack_linear(mlp.down)
        del mlp.gate_up, mlp.down


def _pack_linear(linear: Linear, interleaved: bool = False) -> PackedWeight:
    return _pack(linear.matrix, linear.added, interleaved)


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


def _embed(program: Program, table: Table, out: Tensor) -> None:
    if isinstance(table, Int8Matrix):
        program.embed(table.values, out, table.scales, parts=table.parts)
    else:
        assert isinstance(table, PlainMatrix)
        program.embed(table.values, out)
