"""Logs in other programs' forms: Chrome's trace format (for Perfetto), Mooncake's trace lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from penstock.core.prefix import block_hash
from penstock.debug.explain import explain
from penstock.observe.reader import Log

BLOCK_TOKENS = 512
"""of Mooncake's published traces"""


def perfetto(log: Log) -> Iterator[str]:
    """A trace that ui.perfetto.dev opens: a process an engine, a row a request, its spans in it;
    a row of steps, and counters of the batch and the KV blocks. Yields pieces of one JSON text."""
    base = min((r.received_s for r in log.requests), default=0.0)
    yield '{"displayTimeUnit":"ms","traceEvents":[\n'
    first = True
    for event in _events(log, base):
        yield ("" if first else ",\n") + json.dumps(event, separators=(",", ":"))
        first = False
    yield "\n]}\n"


def _events(log: Log, base: float) -> Iterator[dict[str, Any]]:
    places = {key: number for number, key in enumerate(sorted(log.steps), 1)}
    for (start, engine), process in places.items():
        name = {"name": f"engine {engine} of {start}"}
        yield {"ph": "M", "pid": process, "tid": 0, "name": "process_name", "args": name}
    for row, record in enumerate(log.requests, 1):
        process = places.get((record.start, record.engine), 0)
        begin = (record.received_s - base) * 1e6
        label = {"name": record.id}
        yield {"ph": "M", "pid": process, "tid": row, "name": "thread_name", "args": label}
        for span in explain(log, record).spans:
            yield {
                "ph": "X",
                "pid": process,
                "tid": row,
                "name": span.name,
                "ts": round(begin + span.begin * 1e6, 1),
                "dur": round(span.s * 1e6, 1),
                "args": {"detail": span.detail},
            }
    for (start, engine), table in log.steps.items():
        process, offset = places[start, engine], log.offset(start) - base
        for step in table.rows:
            end = (step.at + offset) * 1e6
            yield {
                "ph": "X",
                "pid": process,
                "tid": 0,
                "name": "step",
                "ts": round(end - step.step_s * 1e6, 1),
                "dur": round(step.step_s * 1e6, 1),
                "args": {"step": step.step, "device_ms": step.device_s * 1e3},
            }
            tokens = {"prefill": step.prefill_tokens, "decode": step.decode_tokens}
            yield {"ph": "C", "pid": process, "name": "tokens", "ts": round(end, 1), "args": tokens}
            blocks = {"free": step.blocks_free, "cached": step.blocks_cached}
            yield {"ph": "C", "pid": process, "name": "blocks", "ts": round(end, 1), "args": blocks}


def mooncake(log: Log) -> Iterator[str]:
    """The load as Mooncake's JSON lines, one a choice, in order of time: `workload` reads it back.
    Prompts share `hash_ids` exactly where they share whole blocks of 512 tokens from the start."""
    base = log.requests[0].received_s if log.requests else 0.0
    names: dict[bytes, int] = {}
    for record in log.requests:
        row: dict[str, Any] = {
            "timestamp": round((record.received_s - base) * 1e3),
            "input_length": record.num_prompt,
            "output_length": 0,
        }
        if record.prompt_ids is not None:
            row["hash_ids"] = _hash_ids(record.salt, record.prompt_ids, names)
        if record.session:
            row["session_id"] = record.session
        for choice in record.choices:
            row["output_length"] = choice.num_generated
            yield json.dumps(row) + "\n"


def _hash_ids(salt: str, ids: list[int], names: dict[bytes, int]) -> list[int]:
    parent, found = salt.encode(), []
    for first in range(0, len(ids), BLOCK_TOKENS):
        parent = block_hash(parent, ids[first : first + BLOCK_TOKENS])
        found.append(names.setdefault(parent, len(names)))
    return found
