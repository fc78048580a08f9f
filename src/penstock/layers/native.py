"""A decoder as a program of CPU kernels: the same layers, one native call a step.

`layers/decoder.py` stays the one definition of the model: this reads a loaded `Decoder`'s modules,
packs their weights and records what `Decoder.forward` does. The result is a CausalLM over the
caches of attention/cpu.py, so that runner and engine do not know the difference.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from penstock.attention.base import AttnBatch
from penstock.attention.cpu import view
from penstock.errors import UnsupportedError
from penstock.kernels.cpu import program
from penstock.kernels.cpu.ops import Batch, Epilogue, GroupTables, Rope
from penstock.kernels.cpu.pack import Format, PackedWeight, interleave
from penstock.layers.decoder import Decoder, DecoderPlan, _Layer
from penstock.layers.linear import Linear
from penstock.layers.rotary import inverse_frequencies
from penstock.layers.targets import Targets

Pack = Callable[[Tensor, Tensor | None], PackedWeight]
"""weight [n, k] and bias [n] -> the weight in a format"""


class NativeDecoder:
    """See CausalLM. The residual stream is float32; inside a layer activations are bfloat16, or
    float32 with float32 weights."""

    def __init__(
        self,
        model: Decoder,
        pack: Pack,
        max_len: int,
        threads: int | None = None,
        isa: str | None = None,
    ) -> None:
        """max_len: tokens of the longest sequence. `model` is loaded, on the CPU, and not needed
        afterwards. Raises UnsupportedError for what the kernels cannot do."""
        plan = model.plan
        if plan.act not in ("silu", "swish"):
            raise UnsupportedError(
                f"The CPU kernels know SiLU, not {plan.act}.", cure="Choose another backend."
            )
        self.kv_groups = model.kv_groups
        self.num_kv_heads = model.num_kv_heads
        self.head_dim = model.head_dim
        self.vocab_size = model.vocab_size
        self.max_positions = model.max_positions
        self._plan = plan
        self._max_len = max_len
        self._isa = isa
        self._pool = program.pool(threads)
        self._table = model._embed.weight
        self._norm = model._norm.weight.float()
        self._head = pack(model._head.weight, None)
        self._layers = [_PackedLayer(layer, pack) for layer in model._layers]
        self._cos, self._sin = _tables(plan, max_len)
        self._recorded: _Recorded | None = None
        self._logits: _Logits | None = None

    @property
    def weight_bytes(self) -> int:
        """What a step with one token reads of the weights."""
        packed = [w for layer in self._layers for w in layer.weights]
        return sum(weight.num_bytes for weight in (*packed, self._head))

    def forward(
        self, ids: Tensor, positions: Tensor, caches: list[Tensor], batch: AttnBatch
    ) -> Tensor:
        """See CausalLM.forward. The result is float32 and valid until the next call."""
        tokens = ids.shape[0]
        where = tuple(cache.data_ptr() for cache in caches)
        recorded = self._recorded
        if recorded is None or recorded.caches != where or recorded.max_tokens < tokens:
            recorded = self._recorded = _Recorded(self, caches, max(tokens, 64))
        groups = [GroupTables(g.block_tables, g.slot_mapping) for g in batch.groups]
        given = Batch(ids, positions, batch.query_start, batch.seq_lens, ids[:0], groups)
        recorded.program.run(given)
        return recorded.hidden[:tokens]

    def logits(self, hidden: Tensor) -> Tensor:
        """See CausalLM.logits."""
        rows = hidden.shape[0]
        if self._logits is None or self._logits.max_rows < rows:
            self._logits = _Logits(self, max(rows, 16))
        return self._logits(hidden)

    def targets(self) -> Targets:
        """Nothing: weights are packed already."""
        return {}

    def spare(self, name: str) -> bool:
        """See CausalLM.spare."""
        return True


class _PackedLayer:
    """The weights of one layer."""

    def __init__(self, layer: _Layer, pack: Pack) -> None:
        attention, mlp = layer._attention, layer._mlp
        self.shape = attention._shape
        self.norm_in = layer._norm_in.weight.float()
        self.norm_mid = layer._norm_mid.weight.float()
        self.q_norm = self.k_norm = None
        if attention._norm is not None:
            self.q_norm = attention._norm[0].float()
            self.k_norm = attention._norm[-1].float()
        self.qkv = _packed(attention.qkv, pack)
        self.out = _packed(attention.out, pack)
        gate_up, bias = mlp.gate_up.weight.chunk(2), None
        if mlp.gate_up.bias is not None:
            bias = interleave(*mlp.gate_up.bias.chunk(2))
        self.gate_up = pack(interleave(*gate_up), bias)
        self.down = _packed(mlp.down, pack)

    @property
    def weights(self) -> tuple[PackedWeight, ...]:
        return self.qkv, self.out, self.gate_up, self.down


class _Recorded:
    """The program of all layers, with its buffers, for one set of caches."""

    def __init__(self, model: NativeDecoder, caches: list[Tensor], max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.caches = tuple(cache.data_ptr() for cache in caches)
        plan = model._plan
        self.program = program.Program(model._pool, max_tokens, 0, model._isa)

        def buffer(size: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(max_tokens, size, dtype=dtype)

        q_size, kv_size = plan.num_heads * plan.head_dim, plan.num_kv_heads * plan.head_dim
        # Inner activations are written and read once: half the bytes made int8 prefill of the
        # gated layer 1.4 times faster.
        inner = torch.float32 if model._head.format == Format.FLOAT32 else torch.bfloat16
        self.hidden, x = buffer(plan.hidden_size), buffer(plan.hidden_size)
        qkv, q = buffer(q_size + 2 * kv_size), buffer(q_size)
        attended, act = buffer(q_size, inner), buffer(-(-plan.mlp_size // 16) * 16, inner)
        p, eps = self.program, plan.norm_eps
        p.embed(model._table, x)
        for layer, cache in zip(model._layers, caches, strict=True):
            shape, kv = layer.shape, view(cache)
            turned = shape.rotary
            rope = Rope(
                model._cos if turned else None,
                model._sin if turned else None,
                layer.q_norm,
                layer.k_norm,
                shape.norm_eps or 0.0,
            )
            scale, group = shape.head_dim**-0.5, shape.group
            p.linear(layer.qkv, x, qkv, layer.norm_in, eps)
            p.rope(qkv, q, kv, rope, group)
            p.attention(q, attended, kv, scale, model._max_len, shape.window, group=group)
            p.linear(layer.out, attended, x, epilogue=Epilogue.ADD)
            p.linear(layer.gate_up, x, act, layer.norm_mid, eps, Epilogue.SILU_MUL)
            p.linear(layer.down, act[:, : layer.down.k], x, epilogue=Epilogue.ADD)
        p.norm(x, model._norm, eps, self.hidden)


class _Logits:
    """The head for up to max_rows rows."""

    def __init__(self, model: NativeDecoder, max_rows: int) -> None:
        self.max_rows = max_rows
        self._rows = torch.empty(max_rows, model._plan.hidden_size)
        self._out = torch.empty(max_rows, model.vocab_size)
        self._program = program.Program(model._pool, max_rows, 0, model._isa)
        self._program.linear(model._head, self._rows, self._out)

    def __call__(self, hidden: Tensor) -> Tensor:
        """Valid until the next call."""
        rows = hidden.shape[0]
        self._rows[:rows] = hidden
        nothing = torch.empty(0, dtype=torch.int64)
        ids, lens = torch.empty(rows, dtype=torch.int64), nothing.int()
        self._program.run(Batch(ids, nothing, lens, lens, nothing))
        return self._out[:rows]


def _packed(linear: Linear, pack: Pack) -> PackedWeight:
    return pack(linear.weight, linear.bias)


def _tables(plan: DecoderPlan, max_len: int) -> tuple[Tensor, Tensor]:
    """cos and sin float32 [max_len, head_dim / 2]."""
    frequencies = inverse_frequencies(plan.rope, plan.head_dim)
    angles = torch.arange(max_len)[:, None].float() * frequencies
    factor = plan.rope.attention_factor
    return angles.cos() * factor, angles.sin() * factor
