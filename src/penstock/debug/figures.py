"""The figures of a request, and tables of them: mean, p50, p95, p99 of every latency, by group."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from penstock.core.records import RequestRecord
from penstock.errors import ConfigError
from penstock.report.stats import Spread

LATENCIES = {
    "e2e": "received to the last byte handed to the socket",
    "ttft": "received to the first token",
    "tpot": "(e2e - ttft) / (output tokens - 1)",
    "itl": "between two steps that gave tokens, each gap",
    "stall": "the longest gap of a request",
    "intake": "received to the engine's queue",
    "tokenize": "work of template and tokenizer",
    "queue": "all time without a slot",
    "prefill": "first slot to first token, without the queue",
    "decode": "first token to last, without the queue",
    "reply": "end in the engine to the last byte",
}
"""Name -> definition; all in seconds."""


def latencies(record: RequestRecord) -> dict[str, list[float]]:
    """Observations by name; none where an instant was not reached."""
    found: dict[str, list[float]] = {name: [] for name in LATENCIES}
    end = record.sent if record.sent is not None else record.ended
    firsts = [c.first_token for c in record.choices if c.first_token is not None]
    if end is not None:
        found["e2e"].append(end)
    if firsts:
        found["ttft"].append(min(firsts))
    if record.tokenized is not None:
        found["tokenize"].append(record.tokenize_s)
    for choice in record.choices:
        waits = sum(wait.s for wait in choice.waits)
        gaps = [gap / 1e6 for gap in choice.gaps_us]
        found["itl"] += gaps
        if choice.queued is not None:
            found["intake"].append(choice.queued)
            found["queue"].append(waits)
        if gaps:
            found["stall"].append(max(gaps))
        if choice.scheduled is None or choice.first_token is None or choice.queued is None:
            continue
        before = waits_before(record, choice.first_token, choice.index)
        prefill = choice.first_token - choice.queued - before
        found["prefill"].append(max(0.0, prefill))
        found["decode"].append(max(0.0, sum(gaps) - (waits - before)))
        tokens = choice.num_generated
        if choice.finished is not None:
            if tokens > 1:
                rest = choice.finished - choice.first_token
                found["tpot"].append(rest / (tokens - 1))
            if end is not None:
                found["reply"].append(max(0.0, end - choice.finished))
    return found


def waits_before(record: RequestRecord, at: float, index: int) -> float:
    """Time without a slot before an instant."""
    choice = record.choices[index]
    later = sum(end - begin for begin, end in _outs(record, index) if begin >= at)
    return sum(wait.s for wait in choice.waits) - later


def _outs(record: RequestRecord, index: int) -> list[tuple[float, float]]:
    choice = record.choices[index]
    ends = [at for at, _ in choice.resumed]
    return [(p[0], end) for p, end in zip(choice.preempted, ends, strict=False)]


def _hour(record: RequestRecord) -> str:
    return datetime.fromtimestamp(record.received_s, UTC).strftime("%Y-%m-%d %Hh")


GROUPS: dict[str, Callable[[RequestRecord], str]] = {
    "all": lambda record: "all",
    "replica": lambda record: f"{record.start}/{record.engine}",
    "model": lambda record: record.model,
    "key": lambda record: record.key or "",
    "class": lambda record: record.slo_class or f"priority {record.priority}",
    "hour": _hour,
    "session": lambda record: record.session or "",
    "finish": lambda record: record.finish,
    "endpoint": lambda record: record.endpoint,
}
"""What --by may name -> the group of a request."""


@dataclass(slots=True)
class Group:
    name: str
    requests: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    preemptions: int = 0
    first_s: float = float("inf")
    last_s: float = 0.0
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, record: RequestRecord) -> None:
        self.requests += 1
        self.errors += record.finish == "error"
        self.prompt_tokens += record.num_prompt
        self.output_tokens += record.num_output
        self.cached_tokens += record.cached_tokens
        self.preemptions += record.preemptions
        self.first_s = min(self.first_s, record.received_s)
        self.last_s = max(self.last_s, record.received_s + (record.sent or record.ended or 0.0))
        for name, values in latencies(record).items():
            self.values.setdefault(name, []).extend(values)

    @property
    def hit_rate(self) -> float:
        """Share of prompt tokens read from a cache."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else 0.0

    @property
    def output_rate(self) -> float:
        """Output tokens/s from the first request in to the last byte out."""
        span = self.last_s - self.first_s
        return self.output_tokens / span if span > 0 else 0.0

    def spread(self, name: str) -> Spread:
        return Spread.of(self.values.get(name, []))


def grouped(requests: Iterable[RequestRecord], by: str) -> list[Group]:
    """Groups in order of their names. Raises ConfigError for an unknown `by`."""
    if by not in GROUPS:
        raise ConfigError(
            f"--by is {by!r}: nothing to group by.", cure=f"Use one of {', '.join(GROUPS)}."
        )
    groups: dict[str, Group] = {}
    for record in requests:
        name = GROUPS[by](record)
        groups.setdefault(name, Group(name)).add(record)
    return [groups[name] for name in sorted(groups)]
