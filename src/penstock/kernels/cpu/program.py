"""Programs of CPU kernels: recorded once, run for any batch in one call without the GIL.

Activations live in float32 or bfloat16 tensors with one row a token, made for the largest batch;
an op works on the rows that a run has. Every op is batch invariant, bit for bit: a row's result
does not depend on other rows, on how a prompt is cut into chunks, or on the number of threads. It
may depend on the instruction set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import psutil
import torch
from torch import Tensor

from penstock.kernels import cpu
from penstock.kernels.cpu.ops import Batch, Epilogue, KVCache, Rope
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


_POOLS: WeakValueDictionary[tuple[int, int], _native.Pool] = WeakValueDictionary()


def pool(threads: int | None = None, spin_us: int = SPIN_US) -> _native.Pool:
    """Workers for programs, the calling thread included. Default: one for each physical core.
    Whoever asks for the same gets the same ones, so that a process has no more than it needs.

    Raises UnsupportedError where the kernels do not run.
    """
    key = (threads or physical_cores(), spin_us)
    workers = _POOLS.get(key)
    if workers is None:
        workers = _POOLS[key] = cpu.native().Pool(*key)
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
    ) -> None:
        """out[i] = epilogue(rms_norm(x[i]) W^T + bias).

        x [tokens, k] and out [tokens, n (n / 2 with SILU_MUL)], float32 or bfloat16; norm: float32
        [k], the norm's weight, None for no norm. wanted: row i of out is token `wanted[i]` of x.
        """
        n = weight.n // 2 if epilogue == Epilogue.SILU_MUL else weight.n
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
            out.data_ptr(),
            _DTYPES[out.dtype],
            out.stride(0),
            int(wanted),
        )

    def norm(self, x: Tensor, weight: Tensor, eps: float, out: Tensor) -> None:
        """out = x / rms(x) * weight; x and weight float32."""
        size = weight.shape[0]
        self._check(x, size, self._max_tokens)
        self._check(out, size, self._max_tokens)
        self._keep(x, weight, out)
        self._native.norm(
            x.data_ptr(), weight.data_ptr(), eps, out.data_ptr(), _DTYPES[out.dtype], size
        )

    def embed(self, table: PackedWeight, out: Tensor, multiplier: float = 1.0) -> None:
        """out[i] = rotate(table[ids[i]] * multiplier, table.parts). The table may be a head at the
        same time; not int4. out float32 [tokens, k]."""
        self._check(out, table.k, self._max_tokens)
        self._keep(table, out)
        self._native.embed(_weight(table), multiplier, out.data_ptr())

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
    scales = _address(weight.scales)
    native: _native.Weight = cpu.native().Weight(
        int(weight.format),
        weight.n,
        weight.k,
        weight.data.data_ptr(),
        scales if weight.format == Format.INT8 else 0,
        scales if weight.format == Format.INT4 else 0,
        _address(weight.bias),
        weight.parts,
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
