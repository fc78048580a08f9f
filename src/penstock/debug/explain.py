"""Where each millisecond of a request went: spans that follow each other without a hole.

From the first byte in to the last byte out the way of one choice is cut at every instant that the
log knows; what lies between two of them has one name. What no instant ends stays `unaccounted`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from penstock.core.records import ChoiceRecord, RequestRecord, Wait
from penstock.observe.reader import Log, StepRow, StepTable
from penstock.report.stats import percentile

UNACCOUNTED = "unaccounted"
WAITS = {
    "step": "queue: the step under way",
    "slots": "queue: max_num_seqs requests run",
    "tokens": "queue: the token budget of each step is spent",
    "blocks": "queue: the KV cache is full",
    "preemption": "queue: somebody was just preempted",
    "background": "queue: background work makes room",
    "result": "queue: a step still computes it",
    "prefix": "queue: another request computes the same prefix",
    "adapter": "queue: all slots for adapters are in use",
}


@dataclass(frozen=True, slots=True)
class Span:
    """Seconds since the request was received."""

    name: str
    begin: float
    end: float
    detail: str = ""

    @property
    def s(self) -> float:
        return self.end - self.begin


@dataclass(slots=True)
class Explanation:
    record: RequestRecord
    choice: ChoiceRecord
    total_s: float
    """received to the last byte handed to the socket"""
    spans: list[Span] = field(default_factory=list)

    @property
    def accounted(self) -> float:
        """Share of the total that the named spans cover."""
        if not self.total_s:
            return 1.0
        named = sum(span.s for span in self.spans if span.name != UNACCOUNTED)
        return named / self.total_s

    def by_name(self) -> dict[str, float]:
        """Seconds by span, the largest first."""
        found: dict[str, float] = {}
        for span in self.spans:
            found[span.name] = found.get(span.name, 0.0) + span.s
        return dict(sorted(found.items(), key=lambda item: -item[1]))


Mark = tuple[float | None, str, str]
"""(end of a span, its name, detail)"""


def explain(log: Log, record: RequestRecord, index: int | None = None) -> Explanation:
    """index: of the choice; None: the one that ended last."""
    choice = record.choices[index] if index is not None else _last(record)
    total = record.sent if record.sent is not None else record.ended
    if total is None:
        total = max((t for t, _, _ in _marks(record, choice, None, 0.0) if t), default=0.0)
    engine = choice.engines[-1] if choice.engines else record.engine
    table = log.steps.get((record.start, engine))
    made = Explanation(record, choice, total)
    now = 0.0
    for end, name, detail in _marks(record, choice, table, log.received(record)):
        if end is None or end <= now:
            continue
        until = min(end, total)
        if until > now:
            made.spans.append(Span(name, now, until, detail))
            now = until
    if total - now > 1e-9:
        made.spans.append(Span(UNACCOUNTED, now, total))
    return made


def _last(record: RequestRecord) -> ChoiceRecord:
    return max(record.choices, key=lambda choice: choice.delivered or choice.finished or 0.0)


def _marks(
    record: RequestRecord, choice: ChoiceRecord, table: StepTable | None, zero: float
) -> Iterator[Mark]:
    """Instants in their order; zero: when it was received, on the engine's clock."""
    encoded = None if record.tokenizing is None else record.tokenizing + record.tokenize_s
    yield record.parsed, "read and check the body", ""
    yield record.admitted, "the door", ""
    yield record.tokenizing, "wait for a tokenizer thread", ""
    yield encoded, "template and tokenizer", f"{record.num_prompt} tokens"
    yield record.tokenized, "wait for the event loop", ""
    yield record.submitted, "resolve parameters", ""
    yield choice.queued, _after(record.submitted, "to the engine"), ""
    yield from _engine_marks(choice, table, zero)
    yield choice.finished, _after(choice.queued, "end in the engine"), choice.finish or ""
    took = f"{record.detokenize_s * 1e3:.2f} ms in the detokenizer in all"
    yield choice.delivered, _after(choice.finished, "back from the engine, detokenizer"), took
    left = "until its reader left" if choice.finish == "abort" else UNACCOUNTED
    yield record.ended, left if choice.delivered is None else "the other choices", ""
    yield record.sent, _after(record.ended, "write the reply to the socket"), ""


def _after(before: float | None, name: str) -> str:
    """A span has a name only where the instant that begins it is known."""
    return UNACCOUNTED if before is None else name


def _engine_marks(choice: ChoiceRecord, table: StepTable | None, zero: float) -> Iterator[Mark]:
    """Queue, prefill, decode and preemptions, in order of time."""
    waits = iter(choice.waits)
    marks: list[Mark] = []
    ends = [choice.scheduled, *(at for at, _ in choice.resumed)]
    begins = [choice.queued, *(at for at, *_ in choice.preempted)]
    for begin, end in zip(begins, [*ends, None], strict=False):
        if begin is None:
            continue
        marks += _wait_marks(begin, choice.finished if end is None else end, waits)
    for number, (at, step, first, count) in enumerate(choice.chunks, 1):
        detail = f"chunk {number}: tokens {first} to {first + count - 1}"
        if number == 1 and choice.cached:
            tiers = ", ".join(f"{n} from {tier}" for tier, n in choice.cached.items())
            detail += f"; {tiers}"
        row = None if table is None else table.ending(zero + at - 1e-6)
        if row is not None and row.step == step:
            detail += f"; beside {row.decode_tokens} decodes"
        marks.append((at, "prefill", detail))
    for at, step, lost, by in choice.preempted:
        detail = f"preempted in step {step} for {by}: {lost} computed tokens lost"
        marks.append((at, "computed until preempted", detail))
    if choice.first_token is not None:
        marks.append((choice.first_token, "prefill", "the step of the first token"))
        marks += _decode_marks(choice, table, zero)
    yield from sorted(marks, key=lambda mark: mark[0] or 0.0)


def _wait_marks(begin: float, end: float | None, waits: Iterator[Wait]) -> list[Mark]:
    """The waits of one stay in the queue, laid end to end."""
    marks: list[Mark] = []
    now = begin
    while end is not None and now < end - 5e-6:
        wait = next(waits, None)
        if wait is None:
            break
        now += wait.s
        behind = f"behind {wait.behind}" if wait.behind else ""
        marks.append((min(now, end), WAITS.get(wait.reason, f"queue: {wait.reason}"), behind))
    if end is not None:
        marks.append((end, WAITS["step"], ""))
    return marks


def _decode_marks(choice: ChoiceRecord, table: StepTable | None, zero: float) -> list[Mark]:
    """Decode from the first token to the last, a mark at each preemption and each stall."""
    assert choice.first_token is not None
    now, marks = choice.first_token, []
    times = [now := now + gap / 1e6 for gap in choice.gaps_us]
    if not times:
        return []
    cuts = [at for at, *_ in choice.preempted if at > choice.first_token]
    stall = stall_limit(choice)
    begin, count = choice.first_token, 0
    for before, at in zip([choice.first_token, *times], times, strict=False):
        count += 1
        last = at == times[-1]
        cut = any(before < c <= at for c in cuts)
        if at - before > stall and not cut:
            if before > begin:
                marks.append(_decode_mark(begin, before, count - 1, table, zero))
            marks.append(_stall_mark(before, at, table, zero))
        elif cut:  # the stay in the queue has marks of its own
            if before > begin:
                marks.append(_decode_mark(begin, before, count - 1, table, zero))
            marks.append((at, "prefill", "again after a preemption"))
        elif last:
            marks.append(_decode_mark(begin, at, count, table, zero))
            continue
        else:
            continue
        begin, count = at, 0
    return marks


def stall_limit(choice: ChoiceRecord) -> float:
    """Gaps longer than this many seconds are told one by one."""
    gaps = [gap / 1e6 for gap in choice.gaps_us]
    return max(5 * percentile(gaps, 50), 0.005) if gaps else 0.0


def _rows(begin: float, end: float, table: StepTable | None, zero: float) -> list[StepRow]:
    return [] if table is None else table.between(zero + begin, zero + end + 1e-6)


def _decode_mark(
    begin: float, end: float, count: int, table: StepTable | None, zero: float
) -> Mark:
    rows = _rows(begin, end, table, zero)
    detail = f"{count} steps, {1e3 * (end - begin) / max(1, count):.2f} ms each"
    if rows:
        batch = sum(row.decode_tokens for row in rows) / len(rows)
        device = sum(row.device_s for row in rows)
        prefill = sum(row.prefill_tokens for row in rows)
        detail += f"; {batch:.1f} requests in a step, {device * 1e3:.1f} ms on the device"
        detail += f", {prefill} prefill tokens of others beside" if prefill else ""
    return end, "decode", detail


def _stall_mark(begin: float, end: float, table: StepTable | None, zero: float) -> Mark:
    rows = _rows(begin, end, table, zero)
    prefill = sum(row.prefill_tokens for row in rows)
    longest = max((row.step_s for row in rows), default=0.0)
    detail = f"{len(rows)} steps, the longest {longest * 1e3:.1f} ms"
    if prefill:
        return end, "decode: stalled by prefill of others", f"{detail}, {prefill} prefill tokens"
    return end, "decode: stalled", detail
