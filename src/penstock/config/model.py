"""Which model is served, and under which names."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.config.option import option
from penstock.registry import FORMATS, MODEL_IMPLS


@dataclass(frozen=True, slots=True)
class ModelConfig:
    model: str = option(
        "demo",
        "`demo` (the embedded demo model), a local folder, or a Hugging Face hub id",
        positional=True,
    )
    revision: str | None = option(
        None, "Branch, tag or commit of the hub id", automatic="the hub's main branch"
    )
    tokenizer: str | None = option(
        None, "Folder or hub id of the tokenizer", automatic="that of the model"
    )
    download_dir: str | None = option(
        None, "Folder for downloads from the hub", automatic="the hub's cache"
    )
    dtype: str = option(
        "auto",
        "Number type of weights and activations, and of the KV cache unless --kv-cache-dtype names"
        " another; `auto` follows the checkpoint",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    quantization: str = option(
        "none",
        "Format of the weights, made at load from any checkpoint: `int8`, or `int4` with the"
        " embedding and the head in int8; both compute with int8 activations",
        choices=FORMATS.names,
    )
    weights_cache: bool = option(
        True,
        "Keep weights on the disk as the CPU kernels read them, so that the next start need not"
        " read, quantize and pack the checkpoint",
    )
    weights_cache_dir: str | None = option(
        None,
        "Folder of the kept weights",
        automatic="penstock/weights in $XDG_CACHE_HOME, or else in ~/.cache",
    )
    weights_cache_bytes: int = option(
        64 << 30,
        "Most that this folder may hold: what was used least recently makes room",
        unit="bytes",
    )
    weights_memory: str = option(
        "auto",
        "Where kept weights lie while they are used: `mapped` from their file, which all engines of"
        " the machine share, or `copied` to huge pages of each, which are read faster; `auto` maps"
        " with several engines, and where there are no huge pages",
        choices=("auto", "mapped", "copied"),
    )
    model_impl: str = option(
        "auto",
        "Whose modelling code computes the model: `penstock` has a file for the architecture;"
        " `any`, or `transformers`, takes that library's with our paged attention; `auto` the"
        " first where there is one, else the second where it is installed",
        choices=("auto", "penstock", *MODEL_IMPLS.names),
    )
    max_model_len: int | None = option(
        None,
        "Longest prompt and output together",
        unit="tokens",
        automatic="the context of the model, or less where memory allows less",
    )
    served_model_name: tuple[str, ...] = option(
        (),
        "Name that requests use, the first one in replies (repeatable)",
        automatic="the name given as --model",
    )
    lora_modules: tuple[str, ...] = option(
        (),
        "Adapter as name=folder, a LoRA as PEFT saves it: requests choose it by `model`"
        " (repeatable)",
        automatic="none",
    )
    max_loras: int | None = option(
        None,
        "Different adapters that running requests may have at a time; requests with further ones"
        " wait",
        unit="adapters",
        automatic="as many as --lora-modules; 4 where adapters may be loaded at run time",
    )
    max_lora_rank: int = option(16, "Greatest rank of an adapter: room is made for it")
    allow_runtime_lora_updating: bool = option(
        False, "Let clients load and unload adapters, from any folder of this machine"
    )
    chat_template: str | None = option(
        None,
        "File with a Jinja chat template, or the template itself",
        automatic="that of the tokenizer",
    )
    tool_call_parser: str = option(
        "auto",
        "How the model writes tool calls: hermes, llama3, mistral, mistral_v11, qwen3_coder,"
        " deepseek_v3, deepseek_v31, gpt_oss, json, or none; `auto` asks its chat template",
    )
    reasoning_parser: str = option(
        "auto",
        "How the model marks its reasoning: think, deepseek_r1, mistral, seed, gpt_oss, or none;"
        " `auto` asks its chat template",
    )
    generation_config: str = option(
        "auto",
        "Defaults of sampling parameters: `auto` takes the model's generation_config.json,"
        " `none` neutral ones",
        choices=("auto", "none"),
    )
    pooling: str = option(
        "last",
        "How /v1/embeddings makes one vector of a prompt's hidden states, unless the request says",
        choices=("last", "mean"),
    )
    seed: int | None = option(
        None,
        "Root of the seeds given to requests without one, so that a run can be repeated",
        automatic="drawn at start",
    )

    @property
    def adapter_slots(self) -> int:
        """Slots for adapters; 0: none can be used."""
        automatic = max(len(self.lora_modules), 4 if self.allow_runtime_lora_updating else 0)
        return automatic if self.max_loras is None else self.max_loras
