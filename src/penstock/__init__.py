"""Penstock serves transformer language models: one readable package, from workload to tokens."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.llm import LLM, AsyncLLM, SamplingParams

__version__ = "0.1.0"
__all__ = ["LLM", "AsyncLLM", "SamplingParams", "__version__"]


def __getattr__(name: str) -> Any:
    """Public names load on first use, so that `import penstock` costs nothing."""
    if name in __all__:
        return getattr(importlib.import_module("penstock.llm"), name)
    raise AttributeError(f"module 'penstock' has no attribute {name!r}")
