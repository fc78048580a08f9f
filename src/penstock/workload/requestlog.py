"""Our own request log as a trace: the answered requests among its records (docs/logs.md).

Prompts are known by their ids, so that shared prefixes are exact; a redacted prompt counts as new.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from penstock.core import prefix
from penstock.errors import ConfigError
from penstock.workload.traces import Row, Trace, finish

BLOCK_TOKENS = 16


def trace_of(records: Iterable[tuple[int, Mapping[str, Any]]], name: str) -> Trace:
    """records: (line, record) of all kinds, in any order. Raises ConfigError naming line and field
    of a record that is not as docs/logs.md says, and for a log without answered requests."""
    found: list[tuple[float, int, Row | str]] = []
    for line, record in records:
        if record.get("t") == "request":
            try:
                found.append((float(record["received_s"]), line, _row(record, line)))
            except (KeyError, TypeError, ValueError) as error:
                field = str(error.args[0]) if isinstance(error, KeyError) else "record"
                cause = f"{name}:{line}: {field}: missing or of another type."
                cure = "Give a log that this version wrote."
                raise ConfigError(cause, cure=cure, param=field) from None
    found.sort(key=lambda item: item[:2])
    return finish(name, "penstock", ((line, row) for _, line, row in found), BLOCK_TOKENS)


def _row(record: Mapping[str, Any], line: int) -> Row | str:
    output = int(record["num_output"])
    if record["finish"] not in ("stop", "length") or output < 1:
        return "not answered (refused, failed, or cut off by the client)"
    ids = record["prompt_ids"]
    names: list[bytes] = []
    if ids is not None:
        prefix.extend(names, b"", ids, BLOCK_TOKENS)
    blocks = [int.from_bytes(n[:8], "little") >> 1 for n in names]
    if ids is not None and len(ids) % BLOCK_TOKENS:
        rest = prefix.block_hash(names[-1] if names else b"", ids[len(names) * BLOCK_TOKENS :])
        blocks.append(int.from_bytes(rest[:8], "little") >> 1)
    return Row(
        float(record["received_s"]), int(record["num_prompt"]), output,
        session=str(record["session"] or ""), id=str(record["id"]), blocks=tuple(blocks), line=line,
    )  # fmt: skip
