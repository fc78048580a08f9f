"""The tree itself, and the checks over all of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from penstock.config.engine import EngineConfig
from penstock.config.features import check_features
from penstock.config.log import REDACTABLE, LogConfig
from penstock.config.model import ModelConfig
from penstock.config.option import Option, options
from penstock.config.server import ServerConfig
from penstock.errors import ConfigError

MAX_ENGINES = 64
"""Behind one server."""

SECTIONS: dict[str, type] = {
    "model": ModelConfig,
    "engine": EngineConfig,
    "server": ServerConfig,
    "log": LogConfig,
}


@dataclass(frozen=True, slots=True)
class Config:
    model: ModelConfig = field(default_factory=ModelConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    log: LogConfig = field(default_factory=LogConfig)

    @property
    def max_waiting(self) -> int:
        """Most requests that may queue."""
        limit = self.server.max_waiting
        return 4 * self.max_running if limit is None else limit

    @property
    def max_running(self) -> int:
        """Most requests that may run, on all engines together."""
        return self.engine.max_num_seqs * self.engine.data_parallel_size

    @property
    def served_names(self) -> tuple[str, ...]:
        """Names that requests may use; the first is the one in replies."""
        own = self.model.model.rstrip("/").rsplit("/", 1)[-1]
        full = self.model.model
        return self.model.served_model_name or ((full,) if own == full else (full, own))

    def values(self) -> dict[str, Any]:
        """Every field by its name, which is one of a kind."""
        return {one.name: getattr(getattr(self, one.section), one.name) for one in all_options()}

    def check(self) -> Config:
        """Return self, or raise ConfigError naming the flag, the cause and the cure."""
        for option in all_options():
            option.check(getattr(getattr(self, option.section), option.name))
        _check_model(self.model)
        _check_engine(self.engine)
        _check_server(self.server)
        _check_log(self.log)
        check_features(self.values())
        return self


def all_options() -> Iterator[Option]:
    """Every option of the tree, section by section."""
    for name, section in SECTIONS.items():
        yield from options(section, name)


def _require(ok: bool, name: str, value: Any, cause: str, cure: str) -> None:
    if not ok:
        flag = "--" + name.replace("_", "-")
        raise ConfigError(f"{flag} is {value!r}: {cause}.", cure=cure, param=name)


def _at_least(section: Any, name: str, least: float) -> None:
    value = getattr(section, name)
    ok = value is None or value >= least
    _require(ok, name, value, f"it must be at least {least}", f"Give {least} or more.")


def _check_model(model: ModelConfig) -> None:
    cure = "Name a local folder or a hub id, or leave it away for the demo model."
    _require(bool(model.model.strip()), "model", model.model, "it names no model", cure)
    _at_least(model, "max_model_len", 1)
    _at_least(model, "weights_cache_bytes", 0)
    _at_least(model, "max_loras", 1)
    _at_least(model, "max_lora_rank", 1)
    for module in model.lora_modules:
        name, _, path = module.partition("=")
        _require(bool(name and path), "lora_modules", module, "no name=folder", "Give both.")
    if model.seed is not None:
        ok = -(2**63) <= model.seed < 2**64
        _require(ok, "seed", model.seed, "it does not fit 64 bits", "Give a smaller number.")


def _check_engine(engine: EngineConfig) -> None:
    _at_least(engine, "max_num_seqs", 1)
    _at_least(engine, "max_num_batched_tokens", 1)
    _at_least(engine, "max_num_mixed_prefill_tokens", 0)
    _at_least(engine, "priority_ageing_s", 0.001)
    for name in ("interactive_ttft", "interactive_itl", "agent_ttft", "agent_itl", "batch_ttft"):
        _at_least(engine, f"slo_{name}_s", 0.001)
    ok = 0 <= engine.cached_token_cost <= 1
    cure = "Give a number from 0 to 1."
    _require(ok, "cached_token_cost", engine.cached_token_cost, "out of range", cure)
    _at_least(engine, "block_size", 1)
    _at_least(engine, "kv_cache_memory_bytes", 1)
    _at_least(engine, "num_threads", 1)
    _at_least(engine, "grammar_max_bytes", 1)
    _at_least(engine, "grammar_timeout_s", 0.001)
    _at_least(engine, "grammar_cache_size", 1)
    _at_least(engine, "tensor_parallel_size", 1)
    _at_least(engine, "pipeline_parallel_size", 1)
    _at_least(engine, "prefill_context_parallel_size", 1)
    size = engine.data_parallel_size
    ok = 1 <= size <= MAX_ENGINES
    _require(ok, "data_parallel_size", size, "out of range", f"Give 1 to {MAX_ENGINES}.")
    depth = engine.scheduler_depth
    _require(depth in (1, 2), "scheduler_depth", depth, "only 1 and 2 exist", "Use 1 or 2.")
    budget = engine.max_num_batched_tokens
    ok = budget is None or budget >= engine.max_num_seqs
    _require(
        ok,
        "max_num_batched_tokens",
        budget,
        f"smaller than --max-num-seqs ({engine.max_num_seqs}), so running requests would starve",
        f"Raise it to {engine.max_num_seqs} or more, or lower --max-num-seqs.",
    )


def _check_server(server: ServerConfig) -> None:
    ok = 0 <= server.port <= 65535
    _require(ok, "port", server.port, "no such port", "Use 0 (any free one) to 65535.")
    _at_least(server, "max_waiting", 0)
    _at_least(server, "max_body_bytes", 1024)
    _at_least(server, "max_file_bytes", 1024)
    _at_least(server, "drain_timeout_s", 0)
    _at_least(server, "sse_keep_alive_s", 0.01)
    _at_least(server, "request_timeout_s", 0.001)
    _at_least(server, "health_stuck_after_s", 1)
    cure = "Leave the flag away for a server that is open to all."
    _require(all(server.api_key), "api_key", "", "an empty key protects nothing", cure)


def _check_log(log: LogConfig) -> None:
    cure = "Give 0 to 1."
    _require(0 <= log.log_sample <= 1, "log_sample", log.log_sample, "it is a share", cure)
    wrong = [name for name in log.log_redact if name not in REDACTABLE]
    cure = f"Use {', '.join(REDACTABLE)}."
    _require(not wrong, "log_redact", ", ".join(wrong), "no such part of a record", cure)
    _at_least(log, "log_telemetry_s", 0)
    _at_least(log, "log_segment_bytes", 4096)
    _at_least(log, "log_max_bytes", log.log_segment_bytes)
    _at_least(log, "log_max_age_s", 1)
    _at_least(log, "log_queue", 1)
    _at_least(log, "canary_interval_s", 0)
