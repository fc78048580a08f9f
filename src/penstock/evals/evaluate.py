"""A config and options -> a report: both models of a checkpoint over one text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from penstock.config import Config
from penstock.engine.hub import model_folder, resolve_model
from penstock.engine.load import DTYPES, choose_device, load
from penstock.engine.weights import load_model, read_config
from penstock.errors import ConfigError, UnsupportedError
from penstock.evals.divergence import compare
from penstock.evals.options import EvalOptions
from penstock.evals.reader import Reader
from penstock.evals.report import Report, figures
from penstock.evals.storage import storage
from penstock.evals.windows import Window, cut
from penstock.models.base import CausalLM
from penstock.registry import ATTENTION_BACKENDS
from penstock.report.machine import command_line, machine_info
from penstock.text.tokenizer import Tokenizer

Progress = Callable[[int, int], None]
"""is told (tokens scored, tokens of all windows)"""

REFERENCE_BACKEND = "torch"
LOGIT_ROWS = 64
"""Positions whose logits a program keeps at once."""


def evaluate(
    config: Config, options: EvalOptions, progress: Progress = lambda scored, of: None
) -> Report:
    """Compare the model as the config would serve it with the unquantized one.

    Both models are in memory at once. Raises ConfigError, CheckpointError, TokenizerError.
    """
    if config.engine.processes > 1:
        raise UnsupportedError(
            f"penstock eval reads with one process, not with {config.engine.processes}.",
            cure="Leave --tensor-parallel-size and --pipeline-parallel-size away.",
            param="tensor_parallel_size",
        )
    device = choose_device(config)
    if config.engine.num_threads is not None:
        torch.set_num_threads(config.engine.num_threads)
    folder = model_folder(config)
    raw = read_config(folder)
    other = config.model.tokenizer
    tokenizer = Tokenizer.load(folder if other is None else resolve_model(other))
    text = _read(options.text)
    windows = _windows(tokenizer, text, options)

    loaded = load(config, folder, raw, device)
    _check_context(options.context, loaded.model)
    candidate_storage = storage(loaded.model.targets())
    candidate = loaded.ready(
        options.context, LOGIT_ROWS, options.context, config.engine.num_threads
    )
    wide = DTYPES[options.reference_dtype]
    plain = ATTENTION_BACKENDS.load(REFERENCE_BACKEND)()
    reference = load_model(folder, wide, device, plain)

    count = sum(len(window.ids) - window.first for window in windows)
    done = 0

    def told(scored: int) -> None:
        nonlocal done
        done += scored
        progress(done, count)

    scores = compare(
        Reader(reference, plain, wide, device, options.context),
        Reader(candidate, loaded.backend, loaded.kv_dtype, device, options.context),
        windows,
        told,
    )
    total, buckets = figures(scores, lambda token: len(tokenizer.token_bytes(token)))
    return Report(
        setting=_setting(config, options, text),
        total=total,
        buckets=buckets,
        reference_storage=storage(reference.targets()),
        candidate_storage=candidate_storage,
        max_kl=options.max_kl,
        min_agreement=options.min_agreement,
    )


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--text {file} cannot be read: {error}.", cure="Give a UTF-8 file.", param="text"
        ) from None


def _windows(tokenizer: Tokenizer, text: str, options: EvalOptions) -> list[Window]:
    """Raises ConfigError when the sizes contradict each other or nothing is left to score."""
    prefix = tokenizer.encode("")  # what stands before every text: BOS, for models that have one
    prefix = prefix[:1] if prefix[:1] == [tokenizer.bos_id] else []
    least = len(prefix) + 1 + (not prefix)
    stride = options.context if options.stride is None else options.stride
    for name, value, low in (("context", options.context, least), ("stride", stride, 1)):
        if value < low:
            raise ConfigError(f"--{name} is {value}.", cure=f"Give {low} or more.", param=name)
    ids = tokenizer.encode(text, add_special_tokens=False)[: options.max_tokens]
    windows = list(cut(ids, options.context, stride, prefix))
    if not windows:
        raise ConfigError("--text has no token to score.", cure="Give a longer text.", param="text")
    return windows


def _check_context(context: int, model: CausalLM) -> None:
    if context > model.max_positions:
        raise ConfigError(
            f"--context is {context}, but the model is made for {model.max_positions} tokens.",
            cure="Give a smaller number.",
            param="context",
        )


def _setting(config: Config, options: EvalOptions, text: str) -> dict[str, Any]:
    chosen = {"model": asdict(config.model), "engine": asdict(config.engine)}
    canonical = json.dumps(chosen, sort_keys=True).encode()
    return {
        "command": command_line(),
        "machine": machine_info(),
        "config": chosen,
        "config_hash": hashlib.sha256(canonical).hexdigest(),
        "options": asdict(options),
        "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
