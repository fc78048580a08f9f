"""The pre-norm decoder as recorded programs of CPU kernels: no Python between its layers.

Built from a loaded `Decoder`, whose weights are packed matrix by matrix and given up on the way,
so that a model is never held twice. The residual stream is float32 whatever the weights are; a
row's result does not depend on its batch, bit for bit (see kernels/cpu/program.py).
"""

from __future__ import annotations

from functools import partial

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
        self._layers = [
            _PackedLayer(layer, *rotation, store, f"layers.{index}")
            for index, layer in zip(decoder.own, decoder.layers, strict=True)
        ]
        self._embed = decoder.embed
        if self._embed is not None:
            _keep_table(self._embed.table, store)
        norm = decoder.norm
        self._norm = None if norm is None else store.tensor("norm", norm.weight.float)
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
            head = store.matrix("head", partial(_pack, decoder.head.table))
            self._head.linear(head, self._rows, self._logits)
        store.finish()
        self._caches: list[Tensor] = []
        self._body: list[Program] = []

    def forward(
        self, x: Tensor, positions: Tensor, caches: list[Tensor], batch: AttnBatch
    ) -> Tensor:
        """See CausalLM.forward. The result is overwritten by the next step."""
        if caches is not self._caches:
            self._body, self._caches = self._record(caches), caches
        count = len(x)
        residual, ids = self._x[:count], self._no_ids[:count]
        if self._looks_up:
            ids = x
        else:
            residual.copy_(x if self._embed is None else self._embed(x))
        groups = [GroupTables(g.block_tables, g.slot_mapping) for g in batch.groups]
        run = Batch(ids, positions, batch.query_start, batch.seq_lens, NOTHING, groups)
        for index, program in enumerate(self._body):
            if index:
                assert self._partial is not None
                self._ranks.all_reduce(self._partial[:count])
                residual += self._partial[:count]
            program.run(run)
        return self._hidden[:count]

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

    def _record(self, caches: list[Tensor]) -> list[Program]:
        """Programs, one for each run of ops between two sums over the ranks."""
        plan, tokens, x = self.plan, len(self._x), self._x
        heads, dim = self._layers[0].heads, plan.head_dim
        mlp_size = self._layers[0].mlp_size
        qkv = torch.empty(tokens, (heads + 2 * self.num_kv_heads) * dim)
        q = torch.empty(tokens, heads * dim)
        attended = torch.empty(tokens, heads * dim, dtype=self._act)
        mlp = torch.empty(tokens, -(-mlp_size // 16) * 16, dtype=self._act)
        scale, eps = dim**-0.5, plan.norm_eps
        body = [Program(self._pool, tokens, 1)]
        if self._looks_up:
            assert self._embed is not None
            _embed(body[0], self._embed.table, x)
        for layer, cache in zip(self._layers, caches, strict=True):
            kv = view(cache)
            body[-1].linear(layer.qkv, x, qkv, layer.norm_in, eps)
            body[-1].rope(qkv, q, kv, layer.rope, layer.group)
            body[-1].attention(
                q, attended, kv, scale, self._max_len, layer.window, group=layer.group
            )
            self._add(body, layer.out, attended)
            body[-1].linear(layer.gate_up, x, mlp, layer.norm_mid, eps, Epilogue.SILU_MUL)
            self._add(body, layer.down, mlp[:, :mlp_size])
        if self._norm is not None:
            body[-1].norm(x, self._norm, eps, self._hidden)
        return body

    def _add(self, body: list[Program], weight: PackedWeight, source: Tensor) -> None:
        """Add a product to the residual stream, over all ranks."""
        if self._partial is None:
            body[-1].linear(weight, source, self._x, epilogue=Epilogue.ADD)
        else:
            body[-1].linear(weight, source, self._partial)
            body.append(Program(self._pool, len(self._x), 1))


class _PackedLayer:
    """A layer's weights in the kernels' layout; `prefix` is its name in the store."""

    def __init__(self, layer: Layer, cos: Tensor, sin: Tensor, store: Store, prefix: str) -> None:
        attention, mlp = layer.attention, layer.mlp
        shape = attention.shape
        self.window, self.group = shape.window, shape.group
        self.heads, self.mlp_size = attention.num_heads, mlp.down.inputs.count
        q_norm = k_norm = None
        if attention.norm is not None:
            q_norm = store.tensor(f"{prefix}.q_norm", attention.norm[0].float)
            k_norm = store.tensor(f"{prefix}.k_norm", attention.norm[-1].float)
        if not shape.rotary:
            cos = sin = None  # type: ignore[assignment]
        self.rope = Rope(cos, sin, q_norm, k_norm, shape.norm_eps or 0.0)
        self.norm_in = store.tensor(f"{prefix}.norm_in", layer.norm_in.weight.float)
        self.norm_mid = store.tensor(f"{prefix}.norm_mid", layer.norm_mid.weight.float)
        self.qkv = store.matrix(f"{prefix}.qkv", partial(_pack_linear, attention.qkv))
        self.out = store.matrix(f"{prefix}.out", partial(_pack_linear, attention.out))
        del attention.qkv, attention.out
        gate_up = partial(_pack_linear, mlp.gate_up, interleaved=True)
        self.gate_up = store.matrix(f"{prefix}.gate_up", gate_up)
        self.down = store.matrix(f"{prefix}.down", partial(_pack_linear, mlp.down))
        del gate_up, mlp.gate_up, mlp.down


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


def _keep_table(table: Table, store: Store) -> None:
    """Where ids are looked up stays in the layout of its format."""
    assert isinstance(table, PlainMatrix | Int8Matrix)
    values = table.values
    table.values = store.tensor("embed", lambda: values, looked_up=True)
    if isinstance(table, Int8Matrix):
        scales = table.scales
        table.scales = store.tensor("embed.scales", lambda: scales, looked_up=True)


def _embed(program: Program, table: Table, out: Tensor) -> None:
    if isinstance(table, Int8Matrix):
        program.embed(table.values, out, table.scales, parts=table.parts)
    else:
        assert isinstance(table, PlainMatrix)
        program.embed(table.values, out)
