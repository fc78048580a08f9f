"""The pre-norm decoder as recorded programs of CPU kernels: no Python between its layers.

Built from a loaded `Decoder`, whose weights are packed matrix by matrix and given up on the way,
so that a model is never held twice. The residual stream is float32 whatever the weights are; a
row's result does not depend on its batch, bit for bit (see kernels/cpu/program.py).
"""

from __future__ import annotations

import torch
from torch import Tensor

from penstock.attention.base import AttnBatch
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

NOTHING = torch.empty(0, dtype=torch.int64)
NO_ROWS = torch.empty(0, dtype=torch.int32)


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
        plan = decoder.plan
        self.plan = plan
        self.kv_groups = decoder.kv_groups
        self.num_kv_heads = plan.num_kv_heads
        self.head_dim = plan.head_dim
        self.vocab_size = plan.vocab_size
        self.max_positions = plan.max_positions
        self._max_len = max_len
        self._max_rows = max_rows
        self._pool = pool(threads)
        self._act = decoder.dtype
        rotation = decoder.rotary.table(max_len)
        self._layers = [_PackedLayer(layer, *rotation) for layer in decoder.layers]
        self._norm = decoder.norm.weight.float()
        self._table = decoder.embed.table
        head = _pack(decoder.head.table)
        self._hidden = torch.empty(max_tokens, plan.hidden_size)
        self._rows = torch.empty(max_rows, plan.hidden_size)
        self._logits = torch.empty(max_rows, plan.vocab_size)
        self._no_ids = torch.zeros(max_rows, dtype=torch.int64)  # the head's rows are counted by it
        self._head = Program(self._pool, max_rows)
        self._head.linear(head, self._rows, self._logits)
        self._caches: list[Tensor] = []
        self._body: Program | None = None

    def forward(
        self, ids: Tensor, positions: Tensor, caches: list[Tensor], batch: AttnBatch
    ) -> Tensor:
        """See CausalLM.forward. The result is overwritten by the next step."""
        if self._body is None or caches is not self._caches:
            self._body, self._caches = self._record(caches), caches
        groups = [GroupTables(g.block_tables, g.slot_mapping) for g in batch.groups]
        self._body.run(Batch(ids, positions, batch.query_start, batch.seq_lens, NOTHING, groups))
        return self._hidden[: len(ids)]

    def logits(self, hidden: Tensor) -> Tensor:
        """See CausalLM.logits. Up to max_rows rows, the result is overwritten by the next call."""
        count = len(hidden)
        if count > self._max_rows:
            return torch.cat(
                [self.logits(part).clone() for part in torch.split(hidden, self._max_rows)]
            )
        self._rows[:count] = hidden
        self._head.run(Batch(self._no_ids[:count], NOTHING, NO_ROWS, NO_ROWS, NOTHING))
        return self._logits[:count]

    def _record(self, caches: list[Tensor]) -> Program:
        plan, tokens = self.plan, len(self._hidden)
        x = torch.empty(tokens, plan.hidden_size)
        qkv = torch.empty(tokens, (plan.num_heads + 2 * plan.num_kv_heads) * plan.head_dim)
        q = torch.empty(tokens, plan.num_heads * plan.head_dim)
        attended = torch.empty(tokens, plan.num_heads * plan.head_dim, dtype=self._act)
        mlp = torch.empty(tokens, -(-plan.mlp_size // 16) * 16, dtype=self._act)
        scale, eps = plan.head_dim**-0.5, plan.norm_eps
        program = Program(self._pool, tokens, 1)
        _embed(program, self._table, x)
        for layer, cache in zip(self._layers, caches, strict=True):
            kv = view(cache)
            program.linear(layer.qkv, x, qkv, layer.norm_in, eps)
            program.rope(qkv, q, kv, layer.rope, layer.group)
            program.attention(
                q, attended, kv, scale, self._max_len, layer.window, group=layer.group
            )
            program.linear(layer.out, attended, x, epilogue=Epilogue.ADD)
            program.linear(layer.gate_up, x, mlp, layer.norm_mid, eps, Epilogue.SILU_MUL)
            program.linear(layer.down, mlp[:, : plan.mlp_size], x, epilogue=Epilogue.ADD)
        program.norm(x, self._norm, eps, self._hidden)
        return program


class _PackedLayer:
    """A layer's weights in the kernels' layout."""

    def __init__(self, layer: Layer, cos: Tensor, sin: Tensor) -> None:
        attention, mlp = layer.attention, layer.mlp
        shape = attention.shape
        self.window, self.group = shape.window, shape.group
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
    return _pack(linear.matrix, linear.bias, interleaved)


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
