"""The facade, and the only glue: prompt or messages -> ids -> engine client -> text.

`AsyncLLM` serves the HTTP server and batch jobs, `LLM` scripts; both are one path.
"""

from __future__ import annotations

from penstock.llm.async_llm import AsyncLLM, Prompt
from penstock.llm.generation import Generation
from penstock.llm.offline import LLM
from penstock.text.outputs import (
    CompletionOutput,
    Logprob,
    RequestMetrics,
    RequestOutput,
    TextDelta,
    Usage,
)
from penstock.text.params import SamplingParams

__all__ = [
    "LLM",
    "AsyncLLM",
    "CompletionOutput",
    "Generation",
    "Logprob",
    "Prompt",
    "RequestMetrics",
    "RequestOutput",
    "SamplingParams",
    "TextDelta",
    "Usage",
]
