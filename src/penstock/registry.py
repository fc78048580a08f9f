"""Names that users and checkpoints say -> code, imported on first use.

A new model, attention backend, format … is one file and one line here.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from penstock.errors import ConfigError, PenstockError, UnknownArchitectureError


class Registry:
    """A table name -> "module:attr" that imports an entry when it is asked for."""

    def __init__(self, kind: str, error: type[PenstockError], entries: dict[str, str]) -> None:
        self.kind = kind
        self._error = error
        self._entries = dict(entries)

    @property
    def names(self) -> tuple[str, ...]:
        """Known names, sorted."""
        return tuple(sorted(self._entries))

    def load(self, name: str) -> Any:
        """The object behind a name. Raises the registry's error, listing the known names."""
        if name not in self._entries:
            known = ", ".join(self.names)
            raise self._error(f"Unknown {self.kind} {name!r}.", cure=f"Known: {known}.")
        module, attr = self._entries[name].split(":")
        return getattr(import_module(module), attr)


ARCHITECTURES = Registry(
    "architecture",
    UnknownArchitectureError,
    {
        "Gemma2ForCausalLM": "penstock.models.gemma2:read",
        "Gemma3ForCausalLM": "penstock.models.gemma3:read",
        "GraniteForCausalLM": "penstock.models.granite:read",
        "LlamaForCausalLM": "penstock.models.llama:read",
        "MistralForCausalLM": "penstock.models.mistral:read",
        "MixtralForCausalLM": "penstock.models.mixtral:read",
        "Olmo2ForCausalLM": "penstock.models.olmo2:read",
        "Phi3ForCausalLM": "penstock.models.phi3:read",
        "Qwen2ForCausalLM": "penstock.models.qwen2:read",
        "Qwen3ForCausalLM": "penstock.models.qwen3:read",
        "Qwen3MoeForCausalLM": "penstock.models.qwen3_moe:read",
        "SmolLM3ForCausalLM": "penstock.models.smollm3:read",
    },
)
"""`architectures` of config.json -> read(ConfigJson) -> a model's plan, which can `build` it"""

MODEL_IMPLS = Registry(
    "model implementation",
    ConfigError,
    {
        "any": "penstock.models.any:read",
        "transformers": "penstock.models.any:read",
    },
)
"""--model-impl -> the same for any architecture; beside `penstock`, which is the table above"""

ATTENTION_BACKENDS = Registry(
    "attention backend",
    ConfigError,
    {
        "cpu": "penstock.attention.cpu:CpuAttention",
        "torch": "penstock.attention.torch_fast:TorchFast",
        "torch-reference": "penstock.attention.torch_reference:TorchReference",
    },
)
"""--attention-backend -> a class without constructor arguments that is an AttentionBackend"""

FORMATS = Registry(
    "format",
    ConfigError,
    {
        "none": "penstock.quant.plain:Plain",
        "int8": "penstock.quant.int8:Int8",
        "int4": "penstock.quant.int4:Int4",
    },
)
"""--quantization -> a class without constructor arguments that is a LinearFormat"""
