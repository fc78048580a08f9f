"""The table that a start prints: where its seconds went, and what the engine decided."""

from __future__ import annotations

import time

import psutil

from penstock.engine.client import ModelInfo


class Start:
    """Made as soon as the server listens."""

    def __init__(self) -> None:
        # The process's own age counts the interpreter and all imports, which no timer here sees.
        self._to_listen_s = time.time() - psutil.Process().create_time()
        self._listens_at = time.monotonic()

    def report(self, info: ModelInfo, url: str) -> str:
        """Lines for the terminal, once the model is loaded."""
        to_load_s = time.monotonic() - self._listens_at
        inside_s = sum(info.stages_s.values())
        stages = {
            "command to listening": self._to_listen_s,
            **{f"engine: {name}": seconds for name, seconds in info.stages_s.items()},
            "engine process, tokenizer": max(0.0, to_load_s - inside_s),
            "ready after": self._to_listen_s + to_load_s,
        }
        width = max(len(name) for name in stages)
        lines = [f"{name:<{width}}  {seconds:7.2f} s" for name, seconds in stages.items()]
        about = (
            f"{info.architecture} in {info.dtype} on {info.device}; context {info.max_model_len} "
            f"tokens; KV cache {info.num_blocks} blocks of {info.block_size} tokens; up to "
            f"{info.max_num_seqs} requests at once"
        )
        return "\n".join([*lines, about, *info.notes, f"Serving at {url}/v1", ""])
