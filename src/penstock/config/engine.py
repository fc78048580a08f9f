"""How the engine schedules, how much memory it takes and what it runs on."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.config.option import option
from penstock.registry import ATTENTION_BACKENDS


@dataclass(frozen=True, slots=True)
class EngineConfig:
    max_num_seqs: int = option(64, "Most requests that run at the same time", unit="requests")
    max_num_batched_tokens: int | None = option(
        None,
        "Most tokens that one step computes; longer prompts are cut into chunks of this budget",
        unit="tokens",
        automatic="256 on a CPU, 8192 on a GPU, or --max-num-seqs if that is more",
    )
    max_num_mixed_prefill_tokens: int | None = option(
        None,
        "Most prompt tokens in a step in which other requests decode, so that their streams flow;"
        " 0: no limit but --max-num-batched-tokens",
        unit="tokens",
        automatic="on a CPU 48 where --max-num-batched-tokens is left away, else no limit; no"
        " limit offline",
    )
    enable_prefix_caching: bool = option(
        True, "Reuse the KV cache of prompts and outputs that begin alike"
    )
    scheduling_policy: str = option(
        "fcfs",
        "Order of the queue: `fcfs` first come, first served; `priority` by the request's"
        " `priority`, lower first; `slo` aims at what the classes of requests are promised",
        choices=("fcfs", "priority", "slo"),
    )
    priority_ageing_s: float = option(
        10.0,
        "With `priority`: waiting time that is worth one level, so that nobody starves",
        unit="seconds",
    )
    default_slo_class: str = option(
        "interactive",
        "With `slo`: class of requests that name none (field `slo_class`, header X-Slo-Class)",
        choices=("interactive", "agent", "batch"),
    )
    slo_interactive_ttft_s: float = option(
        1.0, "With `slo`: time to the first token promised to interactive requests", unit="seconds"
    )
    slo_interactive_itl_s: float = option(
        0.2, "With `slo`: longest time between two tokens of interactive requests", unit="seconds"
    )
    slo_agent_ttft_s: float = option(
        5.0, "With `slo`: time to the first token promised to agents", unit="seconds"
    )
    slo_agent_itl_s: float = option(
        0.5, "With `slo`: longest time between two tokens of agents", unit="seconds"
    )
    slo_batch_ttft_s: float = option(
        600.0,
        "With `slo`: how long batch requests, which fill idle capacity, may be passed by others",
        unit="seconds",
    )
    cached_token_cost: float = option(
        0.25,
        "In the fair queue between keys: what a prompt token counts that the cache already holds",
        unit="tokens",
    )
    scheduler_depth: int = option(
        2,
        "Plans that may be under way at once: 1 waits for each step, 2 plans the next one while"
        " the device computes",
        unit="plans",
    )
    block_size: int | None = option(
        None,
        "Tokens in one block of the KV cache",
        unit="tokens",
        automatic="the attention backend's choice",
    )
    kv_cache_memory_bytes: int | None = option(
        None,
        "Memory for the KV cache, of each parallel process; takes suffixes such as 512MiB or 4GB",
        unit="bytes",
        automatic="a safe part of the free memory",
    )
    kv_cache_dtype: str = option(
        "auto",
        "Number type of the KV cache: `auto` that of the activations; `int8` with a float32 scale"
        " for each token and KV head, keys and values apart; `bf16` and `fp32` are `bfloat16` and"
        " `float32`",
        choices=("auto", "bfloat16", "bf16", "float32", "fp32", "int8"),
    )
    attention_backend: str = option(
        "auto",
        "Attention backend; `auto` takes the fastest that runs here",
        choices=("auto", *ATTENTION_BACKENDS.names),
    )
    tensor_parallel_size: int = option(
        1,
        "Processes that share each layer of the model: every one holds a part of the weights and"
        " of the KV cache, and computes a part of each step",
        unit="processes",
    )
    pipeline_parallel_size: int = option(
        1,
        "Stages that the layers of the model are divided into, each with its own processes and its"
        " own part of the KV cache; steps follow each other through them",
        unit="stages",
    )
    prefill_context_parallel_size: int = option(
        1,
        "Processes that share the tokens of long prompts: every one holds the whole weights and the"
        " whole KV cache (of its tensor-parallel part and stage) and computes a part of each chunk",
        unit="processes",
    )
    parallel_transport: str = option(
        "auto",
        "How parallel processes exchange tensors: `shared_memory` (x86 CPUs) or `distributed`"
        " (torch.distributed: gloo on a CPU, NCCL on GPUs); `auto` takes the fastest",
        choices=("auto", "shared_memory", "distributed"),
    )
    grammar_max_bytes: int = option(
        2**20,
        "Largest grammar of structured output, as text; takes suffixes such as 64KiB",
        unit="bytes",
    )
    grammar_timeout_s: float = option(
        10.0, "How long a request may wait for its grammar to be compiled", unit="seconds"
    )
    grammar_cache_size: int = option(
        256, "Compiled grammars to keep for later requests", unit="grammars"
    )
    device: str = option(
        "auto", "Torch device such as `cpu` or `cuda:0`; `auto` takes a GPU where there is one"
    )
    num_threads: int | None = option(
        None,
        "Threads of the arithmetic on a CPU, of each process that has a part in it",
        unit="threads",
        automatic="one for each physical core, shared out between these processes",
    )
    roofline_hardware: str | None = option(
        None,
        "What steps are held against: an entry of `penstock hw show`, or a file as `penstock hw"
        " measure` writes it",
        automatic="a GPU's entry; a CPU is measured at its first start, and that is kept",
    )
    data_parallel_size: int = option(
        1,
        "Engines behind one server, each with the whole model, a queue and a cache of its own;"
        " --max-num-seqs and --kv-cache-memory-bytes are those of each",
        unit="engines",
    )

    @property
    def processes(self) -> int:
        """Ranks of all parts and stages."""
        parts = self.prefill_context_parallel_size
        return self.tensor_parallel_size * parts * self.pipeline_parallel_size
