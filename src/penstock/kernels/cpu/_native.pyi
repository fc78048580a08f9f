"""What module.cpp binds. Addresses are `Tensor.data_ptr()`, 0 for none; sizes in elements."""

def isas() -> list[str]: ...
def quantize_int8(
    w: int,
    bfloat16: bool,
    rows: int,
    size: int,
    stride: int,
    parts: int,
    values: int,
    scales: int,
    threads: int,
) -> float: ...
def quantize_int4(
    w: int,
    bfloat16: bool,
    rows: int,
    size: int,
    stride: int,
    parts: int,
    values: int,
    scales: int,
    threads: int,
) -> float: ...

class Weight:
    def __init__(
        self,
        format: int,
        n: int,
        k: int,
        data: int,
        scales: int,
        group_scales: int,
        bias: int,
        parts: int,
    ) -> None: ...

class Cache:
    def __init__(
        self, data: int, dtype: int, block_size: int, kv_heads: int, head_dim: int
    ) -> None: ...

class Routing:
    def __init__(self, weights: int, places: int, tokens: int, starts: int) -> None: ...

class Pool:
    def __init__(self, threads: int, spin_us: int) -> None: ...
    @property
    def threads(self) -> int: ...
    @property
    def busy_ns(self) -> int: ...

def draw(
    pool: Pool,
    isa: str,
    logits: int,
    stride: int,
    rows: int,
    vocab: int,
    inverse_temperature: int,
    top_k: int,
    top_p: int,
    min_p: int,
    uniform: int,
    keys: int,
    ids: int,
) -> None: ...

class Program:
    def __init__(self, pool: Pool, isa: str, max_tokens: int, max_wanted: int) -> None: ...
    def linear(
        self,
        weight: Weight,
        x: int,
        x_dtype: int,
        x_stride: int,
        norm_weight: int,
        norm_eps: float,
        epilogue: int,
        scale: float,
        softcap: float,
        out: int,
        out_dtype: int,
        out_stride: int,
        rows: int,
    ) -> None: ...
    def norm(
        self,
        x: int,
        x_stride: int,
        weight: int,
        eps: float,
        add: bool,
        out: int,
        out_dtype: int,
        out_stride: int,
        size: int,
    ) -> None: ...
    def embed(self, table: Weight, multiplier: float, out: int) -> None: ...
    def rope(
        self,
        qkv: int,
        heads: int,
        q_norm: int,
        k_norm: int,
        norm_eps: float,
        cos: int,
        sin: int,
        rotary_dim: int,
        q_out: int,
        cache: Cache,
        group: int,
    ) -> None: ...
    def attention(
        self,
        q: int,
        out: int,
        out_dtype: int,
        heads: int,
        cache: Cache,
        scale: float,
        window: int,
        softcap: float,
        max_len: int,
        group: int,
    ) -> None: ...
    def route(
        self, logits: int, experts: int, top_k: int, normalised: bool, to: Routing
    ) -> None: ...
    def experts(
        self,
        weights: list[Weight],
        x: int,
        x_dtype: int,
        x_stride: int,
        norm_weight: int,
        norm_eps: float,
        epilogue: int,
        scale: float,
        out: int,
        out_dtype: int,
        out_stride: int,
        routing: Routing,
        of_tokens: bool,
        to_tokens: bool,
    ) -> None: ...
    def gate(
        self, x: int, act: int, out: int, out_dtype: int, out_stride: int, size: int
    ) -> None: ...
    def combine(
        self,
        x: int,
        routing: Routing,
        top_k: int,
        size: int,
        scale: float,
        add: bool,
        out: int,
    ) -> None: ...
    def run(
        self,
        tokens: int,
        rows: int,
        wanted: int,
        ids: int,
        positions: int,
        query_start: int,
        seq_lens: int,
        wanted_rows: int,
        groups: list[tuple[int, int, int]],
    ) -> None: ...
    def profile(self) -> list[tuple[str, int]]: ...
    def set_profiling(self, on: bool) -> None: ...
