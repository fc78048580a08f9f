"""A trace as timed requests: the recorded times, lengths and shared prefixes as they are."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.workload.prefixes import Prompt, Segment, name_of
from penstock.workload.sessions import TimedRequest
from penstock.workload.traces import Row, Trace


def requests(
    trace: Trace, slo_class: str = "interactive", region: str = "trace", speed: float = 1.0
) -> Iterator[TimedRequest]:
    """Every row once, at its time divided by `speed`. Nobody waits for an answer: a trace has the
    times of the past."""
    sessions: dict[str, int] = {}
    turns: dict[int, int] = {}
    for number, row in enumerate(trace.rows):
        session = _session(row, number, sessions)
        turn = turns.get(session, 0)
        turns[session] = turn + 1
        yield TimedRequest(
            number, row.at_s / speed, session, turn, (), 0.0, _prompt(row, number, trace),
            row.input_tokens, row.output_tokens, name_of(number, 1), slo_class, region,
        )  # fmt: skip


def _session(row: Row, number: int, sessions: dict[str, int]) -> int:
    key = row.session or row.parent
    found = sessions.setdefault(key, number) if key else number
    if row.id:
        sessions[row.id] = found
    return found


def _prompt(row: Row, number: int, trace: Trace) -> Prompt:
    if not row.blocks:
        return (Segment(name_of(number, 0), row.input_tokens),)
    size, left = trace.block_tokens, row.input_tokens
    segments = []
    for block in row.blocks:
        segments.append(Segment(name_of(block), min(size, left)))
        left -= size
    return tuple(segments)
