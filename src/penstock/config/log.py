"""What is logged, where, and for how long (docs/logs.md says what a log holds)."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.config.option import option

REDACTABLE = ("prompt", "prompt_ids", "output", "output_ids", "key", "session", "params")
"""Texts and ids of prompts and outputs, key and session names, and parameters that hold text or ids
(stop strings, bad words, biases)."""


@dataclass(frozen=True, slots=True)
class LogConfig:
    log_dir: str | None = option(
        None,
        "Folder for request, step and telemetry records; several processes may share one",
        automatic="nothing is logged",
    )
    log_sample: float = option(
        1.0, "Share of requests that are logged; those that end in an error always are"
    )
    log_redact: tuple[str, ...] = option(
        (),
        "What records leave out (repeatable): prompt, prompt_ids, output, output_ids, key, session,"
        " params",
        automatic="nothing",
    )
    log_steps: bool = option(True, "Log every step of the engines, a column a figure")
    log_telemetry_s: float = option(
        5.0, "Time between two telemetry records; 0 for none", unit="seconds"
    )
    log_segment_bytes: int = option(
        64 * 2**20, "Size after which a new segment is begun", unit="bytes"
    )
    log_max_bytes: int = option(
        4 * 2**30, "Most that all segments in the folder may take; the oldest go", unit="bytes"
    )
    log_max_age_s: float = option(30 * 86400.0, "Age after which segments go", unit="seconds")
    log_fsync: str = option(
        "second",
        "When written lines are forced to the disk: `never` (a kill loses nothing, a power cut"
        " may), `second`, or `record`",
        choices=("never", "second", "record"),
    )
    canary_interval_s: float = option(
        0.0,
        "Run golden prompts this often, when nothing else runs: other tokens than the known ones"
        " make /health fail; 0: never",
        unit="seconds",
    )
    log_queue: int = option(
        100_000,
        "Most events that may wait for the log's thread; beyond, steps are dropped and counted",
        unit="events",
    )
