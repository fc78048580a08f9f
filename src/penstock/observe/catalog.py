"""Every metric, once: name, kind, unit, labels, buckets, meaning, and the names others know it by.

Own names are `penstock:` + name. An alias is the same numbers under the name that dashboards,
autoscalers and gateways written for vLLM read; nothing is counted twice. Counters end in `_total`
when exposed. All metrics carry the labels `model_name` and `engine` before their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

PREFIX = "penstock:"
COMMON_LABELS = ("model_name", "engine")


class Kind(Enum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """`buckets`: upper bounds, ascending, without infinity. `unit`: of the value, in words."""

    name: str
    kind: Kind
    help: str
    unit: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def own_name(self) -> str:
        return PREFIX + self.name

    @property
    def names(self) -> tuple[str, ...]:
        """All names, own first, without a counter's `_total`."""
        return (self.own_name, *self.aliases)


def counter(name: str, unit: str, help: str, *labels: str, alias: str = "") -> Metric:
    return Metric(name, Kind.COUNTER, help, unit, labels, (), _vllm(alias))


def gauge(name: str, unit: str, help: str, *labels: str, alias: str = "") -> Metric:
    return Metric(name, Kind.GAUGE, help, unit, labels, (), _vllm(alias))


def histogram(
    name: str, unit: str, help: str, buckets: tuple[float, ...], alias: str = ""
) -> Metric:
    return Metric(name, Kind.HISTOGRAM, help, unit, (), buckets, _vllm(alias))


def _vllm(names: str) -> tuple[str, ...]:
    return tuple("vllm:" + name for name in names.split())


def _decades(first: float, last: float, steps: tuple[float, ...]) -> tuple[float, ...]:
    """steps × powers of ten between first and last."""
    bounds = [float(f"{step}e{power}") for power in range(-6, 7) for step in steps]
    return tuple(bound for bound in bounds if first <= bound <= last)


TOKEN_S = _decades(0.00025, 10, (1, 1.5, 2, 2.5, 3, 4, 5, 6, 7.5))
"""for what happens once a token or a step: fine enough for tokens of 1 ms"""
REQUEST_S = (0.00025, *_decades(0.0005, 1000, (1, 2, 3, 5, 7.5)))
HOST_S = _decades(0.00001, 10, (1, 2, 5))
SHARES = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0)
STEP_TOKENS = tuple(float(2**power) for power in range(18))
REQUEST_TOKENS = _decades(1, 200_000, (1, 2, 5))

# State of the engine
RUNNING = gauge(
    "num_requests_running", "requests", "Requests that hold a slot.", alias="num_requests_running"
)
WAITING = gauge(
    "num_requests_waiting",
    "requests",
    "Requests in the engine's queue, held ones included.",
    alias="num_requests_waiting",
)
HELD = gauge(
    "num_requests_held", "requests", "Waiting requests that wait for another one's prefix."
)
KV_USAGE = gauge(
    "kv_cache_usage_perc",
    "ratio",
    "Share of KV blocks that requests refer to; 1 is all of them.",
    alias="kv_cache_usage_perc gpu_cache_usage_perc",
)
BLOCKS_TOTAL = gauge("kv_blocks", "blocks", "KV blocks in the pool.")
BLOCKS_FREE = gauge("kv_blocks_free", "blocks", "KV blocks neither referred to nor cached.")
BLOCKS_CACHED = gauge(
    "kv_blocks_cached", "blocks", "KV blocks that nobody refers to and a prefix hit can still read."
)
LEAKED = gauge("kv_blocks_leaked", "blocks", "Imbalance of the books found when idle; always 0.")
CACHE_CONFIG = gauge(
    "cache_config_info",
    "1",
    "KV cache settings, as labels; the value is always 1.",
    "block_size",
    "num_gpu_blocks",
    "max_model_len",
    "dtype",
    alias="cache_config_info",
)
RSS = gauge("process_resident_memory_bytes", "bytes", "Resident memory of a process.", "process")

# Work
PROMPT_TOKENS = counter(
    "prompt_tokens",
    "tokens",
    "Prompt tokens of requests whose first output token came; cached ones included.",
    alias="prompt_tokens",
)
GENERATION_TOKENS = counter(
    "generation_tokens", "tokens", "Output tokens.", alias="generation_tokens"
)
PREFILL_TOKENS = counter("prefill_tokens", "tokens", "Tokens computed in prefill chunks.")
DECODE_TOKENS = counter("decode_tokens", "tokens", "Tokens computed in decode rows.")
CACHED_TOKENS = counter(
    "prefill_cached_tokens",
    "tokens",
    "Tokens whose prefill was spared by a prefix hit, repeats after preemption included.",
)
LOST_TOKENS = counter(
    "preempted_tokens", "tokens", "Computed tokens whose KV was given up by preemption."
)
PREEMPTIONS = counter(
    "num_preemptions", "preemptions", "Requests put back into the queue.", alias="num_preemptions"
)
RESTARTS = counter("engine_restarts", "processes", "Engine processes that ended and were replaced.")
PREFIX_QUERIES = counter(
    "prefix_cache_queries",
    "tokens",
    "Tokens looked up in the prefix cache.",
    alias="prefix_cache_queries gpu_prefix_cache_queries",
)
PREFIX_HITS = counter(
    "prefix_cache_hits",
    "tokens",
    "Tokens found in the prefix cache.",
    alias="prefix_cache_hits gpu_prefix_cache_hits",
)
STEPS = counter("steps", "steps", "Steps that computed tokens.")
STEP_TOKENS_ALL = histogram(
    "iteration_tokens",
    "tokens",
    "Tokens computed in a step.",
    STEP_TOKENS,
    alias="iteration_tokens_total",
)
STEP_PREFILL = histogram(
    "step_prefill_tokens", "tokens", "Prefill tokens of a step; 0 in pure decode.", STEP_TOKENS
)
STEP_DECODE = histogram(
    "step_decode_tokens", "tokens", "Decode tokens of a step; 0 in pure prefill.", STEP_TOKENS
)
STEP_S = histogram("step_duration_seconds", "seconds", "Wall time of a step.", TOKEN_S)
DEVICE_S = histogram(
    "step_device_seconds", "seconds", "Time of a step inside the model and the sampler.", TOKEN_S
)
SCHEDULE_S = histogram(
    "step_schedule_seconds", "seconds", "Time of a step spent deciding, on the host.", HOST_S
)
PREPARE_S = histogram(
    "step_prepare_seconds", "seconds", "Time of a step that turns the plan into tensors.", HOST_S
)
FORWARD_S = histogram(
    "step_forward_seconds", "seconds", "Time of a step inside the model, logits included.", TOKEN_S
)
SAMPLE_S = histogram(
    "step_sample_seconds", "seconds", "Time of a step from logits to tokens.", HOST_S
)
PUBLISH_S = histogram(
    "step_publish_seconds", "seconds", "Time that handing on a step's events took.", HOST_S
)
HOST_SHARE = histogram(
    "step_host_share",
    "ratio",
    "Part of a step's wall time outside our CPU kernels; not observed where torch computes.",
    SHARES,
)
STEP_BYTES = counter(
    "step_bytes", "bytes", "What steps had to move: weights, and keys and values, read or written."
)
STEP_OPERATIONS = counter("step_operations", "operations", "What steps had to compute.")
STEP_FLOOR_S = counter(
    "step_floor_seconds",
    "seconds",
    "The least time for that on this hardware; compare with the sum of step_duration_seconds.",
)
STEP_BOUND = counter(
    "step_bound",
    "steps",
    "Steps by what takes the most of them: memory, compute or host.",
    "bound",
)

# Utilisation is three numbers: does the engine have work (allocation), does the device compute
# (busy), and how near is that to the device's peak (FLOP and bandwidth, of each step's roofline)
UPTIME = gauge("engine_uptime_seconds", "seconds", "Since the engine said something first.")
WORKING = counter(
    "engine_working_seconds",
    "seconds",
    "Time in steps; its rate is the share of time in which the engine has work (allocation).",
)
DEVICE_BUSY = counter(
    "device_busy_seconds",
    "seconds",
    "Time inside model and sampler; its rate is the share of time in which the device computes.",
)
CHUNKS = counter("prefill_chunks", "chunks", "Parts in which prompts were computed.")
BLOCKED = counter(
    "queue_blocked_seconds",
    "seconds",
    "Time in which the queue stood, by the limit that stopped the first in it.",
    "reason",
)

# Requests: one choice of a request counts as one
SUCCESS = counter(
    "request_success",
    "requests",
    "Requests that ended, by reason.",
    "finished_reason",
    alias="request_success",
)
REQUEST_ERRORS = counter(
    "request_errors", "requests", "Requests that the engine ended with an error.", "code"
)
TTFT_S = histogram(
    "time_to_first_token_seconds",
    "seconds",
    "From the arrival of a request to its first token.",
    REQUEST_S,
    alias="time_to_first_token_seconds",
)
ITL_S = histogram(
    "inter_token_latency_seconds",
    "seconds",
    "Time between two steps that gave a request tokens; one observation a gap.",
    TOKEN_S,
    alias="inter_token_latency_seconds time_per_output_token_seconds",
)
TPOT_S = histogram(
    "request_time_per_output_token_seconds",
    "seconds",
    "(e2e - TTFT) / (n - 1) of a request with n > 1 output tokens.",
    TOKEN_S,
    alias="request_time_per_output_token_seconds",
)
STALL_S = histogram(
    "request_longest_stall_seconds",
    "seconds",
    "The longest gap between a request's tokens.",
    TOKEN_S,
)
E2E_S = histogram(
    "e2e_request_latency_seconds",
    "seconds",
    "From the arrival of a request to its end.",
    REQUEST_S,
    alias="e2e_request_latency_seconds",
)
INTAKE_S = histogram(
    "request_intake_time_seconds",
    "seconds",
    "From the arrival of a request to the engine's queue.",
    REQUEST_S,
)
QUEUE_S = histogram(
    "request_queue_time_seconds",
    "seconds",
    "From the engine's queue to the first slot.",
    REQUEST_S,
    alias="request_queue_time_seconds",
)
PREFILL_S = histogram(
    "request_prefill_time_seconds",
    "seconds",
    "From the first slot to the first token.",
    REQUEST_S,
    alias="request_prefill_time_seconds",
)
DECODE_S = histogram(
    "request_decode_time_seconds",
    "seconds",
    "From the first token to the last.",
    REQUEST_S,
    alias="request_decode_time_seconds",
)
INFERENCE_S = histogram(
    "request_inference_time_seconds",
    "seconds",
    "From the first slot to the last token.",
    REQUEST_S,
    alias="request_inference_time_seconds",
)
REQUEST_PROMPT = histogram(
    "request_prompt_tokens",
    "tokens",
    "Prompt tokens of a finished request.",
    REQUEST_TOKENS,
    alias="request_prompt_tokens",
)
REQUEST_OUTPUT = histogram(
    "request_generation_tokens",
    "tokens",
    "Output tokens of a finished request.",
    REQUEST_TOKENS,
    alias="request_generation_tokens",
)
REQUEST_MAX_TOKENS = histogram(
    "request_params_max_tokens",
    "tokens",
    "max_tokens, where a request gives it.",
    REQUEST_TOKENS,
    alias="request_params_max_tokens",
)
REQUEST_N = histogram(
    "request_params_n",
    "choices",
    "n, the choices that a request asks for.",
    (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0),
    alias="request_params_n",
)

# The server
REJECTED = counter(
    "requests_rejected", "requests", "Requests refused at once with 429 or 503.", "reason"
)
CANCELLED = counter("requests_cancelled", "requests", "Requests whose client left or aborted.")
HTTP_ERRORS = counter("http_errors", "responses", "Error bodies sent.", "code", "status")
TOKENIZE_S = histogram(
    "tokenize_seconds", "seconds", "Template and tokenizer, once a request.", HOST_S
)
KEY_REQUESTS = counter("key_requests", "requests", "Requests of a named key that ended.", "key")
KEY_TOKENS = counter("key_tokens", "tokens", "Tokens of a named key's requests.", "key", "kind")
BATCH_ROWS = counter(
    "batch_rows", "rows", "Rows of batches that have their result.", "endpoint", "outcome"
)
BATCH_ROWS_WAITING = gauge(
    "batch_rows_waiting", "rows", "Rows without a result, of batches that run."
)
DETOKENIZE_S = histogram(
    "detokenize_seconds", "seconds", "Detokenizing and stop strings, once a delta.", HOST_S
)

# Quality
CANARY = counter("canary_runs", "runs", "Runs of the golden prompts.", "result")

# The request log
LOG_DROPPED = counter(
    "log_dropped", "events", "Events that the log's queue had no place for: records lack them."
)
LOG_LOST = counter("log_lost_lines", "lines", "Log lines that could not be written.")
LOG_BYTES = counter("log_written_bytes", "bytes", "Written to log segments.")
LOG_FAILED = gauge(
    "log_failed", "1", "1 while the log cannot be written: requests are served all the same."
)
LOG_DEPTH = gauge("log_queue_depth", "events", "Events that wait for the log's thread.")
LOG_CPU = counter("log_cpu_seconds", "seconds", "CPU time of the log's thread.")

CATALOG: tuple[Metric, ...] = tuple(v for v in list(globals().values()) if isinstance(v, Metric))


def check(metrics: Iterable[Metric]) -> None:
    """Raise ValueError when two metrics share a name, aliases included."""
    seen: dict[str, Metric] = {}
    for metric in metrics:
        for name in metric.names:
            if name in seen:
                raise ValueError(f"{name} is declared by {seen[name].name} and {metric.name}")
            seen[name] = metric


check(CATALOG)


def render_docs() -> str:
    """docs/metrics.md."""
    parts = [
        "<!-- Made by tools/docs.py (make fix): edit src/penstock/observe/catalog.py. -->\n",
        "# Metrics\n",
        "`GET /metrics` answers in Prometheus' text format. Every metric has the labels"
        f" {_code(COMMON_LABELS)} and its own.\nAn alias carries the same numbers under the name"
        " that dashboards and autoscalers for vLLM read.\nTimes are defined in"
        " `src/penstock/core/timeline.py`.\n",
    ]
    for kind in Kind:
        rows = ["| name | unit | labels | meaning | alias |", "| --- | --- | --- | --- | --- |"]
        rows += [_row(metric) for metric in CATALOG if metric.kind is kind]
        parts.append(f"## {kind.value.capitalize()}s\n\n" + "\n".join(rows) + "\n")
    parts.append("## Buckets\n\nUpper bounds, besides infinity.\n")
    scales: dict[tuple[float, ...], list[str]] = {}
    for metric in CATALOG:
        if metric.buckets:
            scales.setdefault(metric.buckets, []).append(metric.own_name)
    for bounds, names in scales.items():
        parts.append(f"{_code(names)}:\n{', '.join(f'{bound:g}' for bound in bounds)}\n")
    return "\n".join(parts)


def _row(metric: Metric) -> str:
    end = "_total" if metric.kind is Kind.COUNTER else ""
    name, *aliases = (name + end for name in metric.names)
    cells = (_code([name]), metric.unit, _code(metric.labels), metric.help, _code(aliases))
    return "| " + " | ".join(cells) + " |"


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
