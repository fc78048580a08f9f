"""What became of each request of a run, measured or simulated: one record for both.

Instants are seconds from the run's begin. Latency counts from when a request was due, not from
when it was sent: a generator that falls behind must not hide the waiting (coordinated omission).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class RequestRecord:
    """One request. An instant that was not reached is None."""

    id: str
    due_s: float
    input_tokens: int
    output_tokens: int = 0
    """received"""
    wanted_tokens: int = 0
    """asked for"""
    cached_tokens: int = 0
    session: int = 0
    turn: int = 0
    slo_class: str = ""
    sent_s: float | None = None
    queued_s: float | None = None
    """when an engine had it; a client cannot tell"""
    scheduled_s: float | None = None
    """when it took a slot; a client cannot tell"""
    first_s: float | None = None
    last_s: float | None = None
    end_s: float | None = None
    longest_stall_s: float | None = None
    error: str = ""
    """its cause in a few words; empty when it was answered"""
    replica: int | None = None
    predicted_ttft_s: float | None = None
    """by the server, at admission"""
    gaps_s: list[float] = field(default_factory=list)
    """between arrivals of tokens; empty where they were only counted"""

    @property
    def arrived(self) -> float:
        return self.due_s

    @property
    def answered(self) -> bool:
        return not self.error and self.end_s is not None

    @property
    def ttft_s(self) -> float | None:
        return None if self.first_s is None else self.first_s - self.due_s

    @property
    def e2e_s(self) -> float:
        return (self.end_s if self.end_s is not None else self.due_s) - self.due_s

    @property
    def tpot_s(self) -> float | None:
        """None with fewer than two output tokens."""
        if self.first_s is None or self.end_s is None or self.output_tokens < 2:
            return None
        return (self.end_s - self.first_s) / (self.output_tokens - 1)

    @property
    def queue_s(self) -> float | None:
        if self.scheduled_s is None or self.queued_s is None:
            return None
        return self.scheduled_s - self.queued_s

    @property
    def lag_s(self) -> float | None:
        """How late it was sent."""
        return None if self.sent_s is None else self.sent_s - self.due_s

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; what was not reached or not told is left out."""
        return {
            name: [round(gap, 6) for gap in value] if name == "gaps_s" else value
            for name, value in asdict(self).items()
            if value is not None and value not in ("", [])
        }


def from_dict(data: dict[str, Any]) -> RequestRecord:
    """The record that `to_dict` described."""
    return RequestRecord(**data)
