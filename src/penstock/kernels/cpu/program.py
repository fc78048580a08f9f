"""Programs of CPU kernels: recorded once, run for any batch in one call without the GIL.

Activations live in float32 or bfloat16 tensors with one row a token, made for the largest batch;
an op works on the rows that a run has. Every op is batch invariant, bit for bit: a row's result
does not depend on other rows, on how a prompt is cut into chunks, or on the number of threads. It
may depend on the instruction set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil
import torch
from torch import Tensor

from penstock.kernels import cpu
from penstock.kernels.cpu.ops import GATED, Batch, Epilogue, Filters, KVCache, Rope, Routing
from penstock.kernels.cpu.pack import Format, PackedWeight

if TYPE_CHECKING:
    from penstock.kernels.cpu import _native

SPIN_US = 200
"""microseconds that a worker waits awake for the next program: about a step's work on the host"""

_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}


def physical_cores() -> int:
    """Cores that this process may use, at least 1; threads of one core count once."""
    logical = psutil.cpu_count() or 1
    cores = psutil.cpu_count(logical=False) or logical
    allowed = len(psutil.Process().cpu_affinity())
    return max(1, min(cores, allowed))


def pool(threads: int | None = None, spin_us: int = SPIN_US) -> _native.Pool:
    """Workers for programs, the calling thread included. Default: one for each physical core.

    Raises UnsupportedError where the kernels do not run.
    """
    workers: _native.Pool = cpu.native().Pool(threads or physical_cores(), spin_us)
    return workers


class Program:
    """A list of ops. Not thread-safe; programs of one pool take turns."""

    def __init__(
        self,
        workers: _native.Pool,
        max_tokens: int,
        max_wanted: int | None = None,
        isa: str | None = None,
    ) -> None:
        """`isa`: one of `cpu.isas()`, the best where None. max_wanted: max_tokens where None.

        Raises ValueError for an instruction set that this machine lacks.
        """
        name = isa or cpu.native().isas()[-1]
        wanted = max_tokens if max_wanted is None else max_wanted
        self._native: _native.Program = cpu.native().Program(workers, name, max_tokens, wanted)
        self._max_tokens = max_tokens
        self._max_wanted = wanted
        self._kept: list[object] = []

    def linear(
        self,
        weight: PackedWeight,
        x: Tensor,
        out: Tensor,
        norm: Tensor | None = None,
        eps: float = 0.0,
        epilogue: Epilogue = Epilogue.STORE,
        wanted: bool = False,
        scale: float = 1.0,
        softcap: float = 0.0,
    ) -> None:
        """out[i] = epilogue(scale * (rms_norm(x[i]) W^T + bias)).

        x [tokens, k] and out [tokens, n (n / 2 with the epilogues of GATED, which have no scale)],
        float32 or bfloat16; norm: float32 [k], the norm's weight, None for no norm. wanted: row i
        of out is token `wanted[i]` of x. softcap c > 0, with STORE alone: c * tanh(result / c).
        """
        n = weight.n // 2 if epilogue in GATED.values() else weight.n
        self._check(x, weight.k, self._max_tokens)
        self._check(out, n, self._max_wanted if wanted else self._max_tokens)
        self._keep(weight, x, out, norm)
        self._native.linear(
            _weight(weight),
            x.data_ptr(),
            _DTYPES[x.dtype],
            x.stride(0),
            _address(norm),
            eps,
            int(epilogue),
            scale,
            softcap,
            out.data_ptr(),
            _DTYPES[out.dtype],
            out.stride(0),
            int(wanted),
        )

    def norm(self, x: Tensor, weight: Tensor, eps: float, out: Tensor, add: bool = False) -> None:
        """out = x / rms(x) * weight, or with `add` out += it; x and weight float32. In place is
        possible."""
        size = weight.shape[0]
        self._check(x, size, self._max_tokens)
        self._check(out, size, self._max_tokens)
        self._keep(x, weight, out)
        self._native.norm(
            x.data_ptr(),
            x.stride(0),
            weight.data_ptr(),
            eps,
            add,
            out.data_ptr(),
            _DTYPES[out.dtype],
            out.stride(0),
            size,
        )

    def embed(
        self,
        table: Tensor,
        out: Tensor,
        scales: Tensor | None = None,
        multiplier: float = 1.0,
        parts: int = 1,
    ) -> None:
        """out[i] = rotate(table[ids[i]] * multiplier, parts). table [vocab, size]: float32,
        bfloat16, or int8 with float32 scales [vocab]; out float32."""
        self._check(out, table.shape[1], self._max_tokens)
        self._keep(table, out, scales)
        self._native.embed(
            table.data_ptr(),
            _DTYPES[table.dtype],
            _address(scales),
            multiplier,
            parts,
            out.data_ptr(),
            table.shape[1],
        )

    def rope(
        self, qkv: Tensor, q: Tensor | None, cache: KVCache, rope: Rope, group: int = 0
    ) -> None:
        """Normalise and rotate queries and keys, write keys and values to the cache at the slots
        of KV group `group`.

        qkv float32 [tokens, (heads + 2 * num_kv_heads) * head_dim]; q float32 [tokens, heads *
        head_dim], None where there are no queries.
        """
        heads = 0 if q is None else q.shape[1] // cache.head_dim
        self._check(qkv, (heads + 2 * cache.num_kv_heads) * cache.head_dim, self._max_tokens)
        rotary_dim = 0 if rope.cos is None else 2 * rope.cos.shape[1]
        self._keep(qkv, q, cache, rope)
        self._native.rope(
            qkv.data_ptr(),
            heads,
            _address(rope.q_norm),
            _address(rope.k_norm),
            rope.norm_eps,
            _address(rope.cos),
            _address(rope.sin),
            rotary_dim,
            _address(q),
            _cache(cache),
            group,
        )

    def attention(
        self,
        q: Tensor,
        out: Tensor,
        cache: KVCache,
        scale: float,
        max_len: int,
        window: int = 0,
        softcap: float = 0.0,
        group: int = 0,
    ) -> None:
        """Attention of q float32 [tokens, heads * head_dim] over the cache; out has q's shape.

        max_len: tokens of the longest sequence. window and softcap: see AttentionBackend.attend.
        """
        heads = q.shape[1] // cache.head_dim
        self._check(out, q.shape[1], self._max_tokens)
        self._keep(q, out, cache)
        self._native.attention(
            q.data_ptr(),
            out.data_ptr(),
            _DTYPES[out.dtype],
            heads,
            _cache(cache),
            scale,
            window,
            softcap,
            max_len,
            group,
        )

    def route(self, logits: Tensor, routing: Routing) -> None:
        """Choose experts for each token: logits float32 [tokens, experts], contiguous."""
        experts = routing.starts.shape[0] - 1
        self._check(logits, experts, self._max_tokens)
        self._keep(logits, routing)
        self._native.route(
            logits.data_ptr(), experts, routing.top_k, routing.normalised, _routing(routing)
        )

    def experts(
        self,
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
        """`linear` by each expert for the pairs that `route` gave it. x has a row a token
        (of_tokens), or a row a pair; out likewise (to_tokens)."""
        pairs = self._max_tokens * routing.top_k
        n = weights[0].n // 2 if epilogue in GATED.values() else weights[0].n
        self._check(x, weights[0].k, self._max_tokens if of_tokens else pairs)
        self._check(out, n, self._max_tokens if to_tokens else pairs)
        self._keep(weights, x, out, routing, norm)
        self._native.experts(
            [_weight(weight) for weight in weights],
            x.data_ptr(),
            _DTYPES[x.dtype],
            x.stride(0),
            _address(norm),
            eps,
            int(epilogue),
            scale,
            out.data_ptr(),
            _DTYPES[out.dtype],
            out.stride(0),
            _routing(routing),
            of_tokens,
            to_tokens,
        )

    def gate(self, x: Tensor, out: Tensor, act: Epilogue) -> None:
        """out = act(gate) * up, as the epilogue `act` does it: x float32 [tokens, 2 * size] from
        `pack.interleave`d weights, contiguous; out [tokens, size], a multiple of 16."""
        self._check(x, 2 * out.shape[1], self._max_tokens)
        self._check(out, out.shape[1], self._max_tokens)
        self._keep(x, out)
        self._native.gate(
            x.data_ptr(),
            int(act),
            out.data_ptr(),
            _DTYPES[out.dtype],
            out.stride(0),
            out.shape[1],
        )

    def combine(
        self, x: Tensor, routing: Routing, out: Tensor, scale: float = 1.0, add: bool = False
    ) -> None:
        """out = scale * the weighted sum of each token's pairs, or with `add` out += it. x float32
        [pairs, size], out float32 [tokens, size], both contiguous."""
        size = x.shape[1]
        self._check(x, size, self._max_tokens * routing.top_k)
        self._check(out, size, self._max_tokens)
        self._keep(x, routing, out)
        self._native.combine(
            x.data_ptr(), _routing(routing), routing.top_k, size, scale, add, out.data_ptr()
        )

    def argmax(self, logits: Tensor, ids: Tensor, maxima: Tensor) -> None:
        """The lowest id among the greatest logits of each wanted row, -1 for a row that is not
        finite. logits float32 [wanted, vocab], ids int64 [wanted], maxima float32 [wanted] (NaN
        where a row has one)."""
        self._check(logits, logits.shape[1], self._max_wanted)
        self._keep(logits, ids, maxima)
        self._native.argmax(logits.data_ptr(), logits.shape[1], ids.data_ptr(), maxima.data_ptr())

    def draw(self, logits: Tensor, filters: Filters, ids: Tensor) -> None:
        """One token of each wanted row, by the specification in engine/draw.py: -1 for a row that
        is not finite. logits float32 [wanted, vocab], ids int64 [wanted]."""
        self._check(logits, logits.shape[1], self._max_wanted)
        self._keep(logits, filters, ids)
        self._native.draw(
            logits.data_ptr(),
            logits.shape[1],
            filters.inverse_temperature.data_ptr(),
            filters.top_k.data_ptr(),
            filters.top_p.data_ptr(),
            filters.min_p.data_ptr(),
            filters.uniform.data_ptr(),
            ids.data_ptr(),
        )

    def run(self, batch: Batch) -> None:
        """Do all ops for a batch. Raises ValueError where it exceeds the program's sizes."""
        groups = [
            (g.block_tables.data_ptr(), g.block_tables.stride(0), g.slots.data_ptr())
            for g in batch.groups
        ]
        self._native.run(
            batch.ids.shape[0],
            batch.seq_lens.shape[0],
            batch.wanted.shape[0],
            batch.ids.data_ptr(),
            batch.positions.data_ptr(),
            batch.query_start.data_ptr(),
            batch.seq_lens.data_ptr(),
            batch.wanted.data_ptr(),
            groups,
        )

    def profile(self, on: bool) -> list[tuple[str, int]]:
        """(kind, nanoseconds since profiling was switched on) of each op; then sets it to `on`."""
        found = self._native.profile()
        self._native.set_profiling(on)
        return found

    def _keep(self, *things: object) -> None:
        """The native program knows addresses only."""
        self._kept += things

    def _check(self, tensor: Tensor, size: int, rows: int) -> None:
        if tensor.shape[0] < rows or tensor.shape[1] != size or tensor.stride(1) != 1:
            raise ValueError(
                f"expected [{rows}, {size}] with contiguous rows, got {list(tensor.shape)} with "
                f"strides {list(tensor.stride())}"
            )


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _weight(weight: PackedWeight) -> _native.Weight:
    native: _native.Weight = cpu.native().Weight(
        int(weight.format),
        weight.n,
        weight.k,
        weight.data.data_ptr(),
        _address(weight.scales) if weight.format == Format.INT8 else 0,
        _address(weight.scales) if weight.format == Format.INT4 else 0,
        _address(weight.bias),
        weight.parts,
    )
    return native


def _routing(routing: Routing) -> _native.Routing:
    native: _native.Routing = cpu.native().Routing(
        routing.weights.data_ptr(),
        routing.places.data_ptr(),
        routing.tokens.data_ptr(),
        routing.starts.data_ptr(),
    )
    return native


def _cache(cache: KVCache) -> _native.Cache:
    native: _native.Cache = cpu.native().Cache(
        cache.data.data_ptr(),
        _DTYPES[cache.dtype],
        cache.block_size,
        cache.num_kv_heads,
        cache.head_dim,
    )
    return native
