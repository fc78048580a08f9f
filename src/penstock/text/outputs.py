"""What a request gives back: deltas while it runs, a `RequestOutput` at its end (vLLM's shape)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock.core.plan import TokenLogprobs
from penstock.core.request import FinishReason, Sampling
from penstock.text.detokenizer import Detokenizer
from penstock.text.params import SamplingParams
from penstock.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Logprob:
    logprob: float
    rank: int
    """1 = the likeliest"""
    decoded_token: str
    """the token alone; parts of a character show as U+FFFD"""
    bytes: bytes
    """exactly what the token stands for"""


PositionLogprobs = dict[int, Logprob]
"""By token id: the chosen (or given) token first, then the alternatives, best first."""


@dataclass(slots=True)
class TextDelta:
    """What is new for one choice. Exactly one delta of a choice, its last, has a finish_reason."""

    index: int
    text: str
    """may lag behind token_ids: unfinished characters and possible stop strings are held back"""
    token_ids: list[int]
    logprobs: list[PositionLogprobs] | None = None
    """parallel to token_ids, when asked for"""
    finish_reason: str | None = None
    """a `core.request.FinishReason` value"""
    stop_reason: str | int | None = None
    """the stop string, or the stop id that the request itself asked for"""


@dataclass(slots=True)
class CompletionOutput:
    index: int
    text: str
    token_ids: list[int]
    """the stop id included, where one ended the answer"""
    cumulative_logprob: float | None
    """of the chosen tokens, when logprobs were asked for"""
    logprobs: list[PositionLogprobs] | None
    finish_reason: str | None
    stop_reason: str | int | None


@dataclass(slots=True)
class RequestMetrics:
    """Times of one request in seconds on the client's monotonic clock; None: not reached."""

    arrival_s: float
    submitted_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None
    finished_s: float | None = None
    predicted_ttft_s: float | None = None
    """from arrival, as predicted at admission (policy `slo`)"""


@dataclass(slots=True)
class Usage:
    """Token counts over all choices of a request."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    """prompt tokens that were read from the prefix cache"""


@dataclass(slots=True)
class RequestOutput:
    request_id: str
    prompt: str | None
    """None when the prompt was given as ids"""
    prompt_token_ids: list[int]
    prompt_logprobs: list[PositionLogprobs | None] | None
    """one entry a prompt token, when asked for; the first is None"""
    outputs: list[CompletionOutput]
    seed: int
    """the request's, or the one that it was given"""
    num_cached_tokens: int
    metrics: RequestMetrics
    finished: bool = True


def position_logprobs(entry: TokenLogprobs, tokenizer: Tokenizer) -> PositionLogprobs:
    """The engine's numbers with their texts."""

    def show(token_id: int, logprob: float, rank: int) -> Logprob:
        raw = tokenizer.token_bytes(token_id)
        return Logprob(logprob, rank, raw.decode(errors="replace"), raw)

    found = {entry.token: show(entry.token, entry.logprob, entry.rank)}
    for i, (token_id, logprob) in enumerate(zip(entry.top_ids, entry.top_logprobs, strict=True)):
        found.setdefault(token_id, show(token_id, logprob, i + 1))
    return found


@dataclass(slots=True)
class Choice:
    """Turns the engine's deltas of one choice into text deltas, and keeps what they add up to.

    Tokens computed past a stop string are dropped here: neither streamed, counted nor kept.
    """

    tokenizer: Tokenizer
    params: SamplingParams
    sampling: Sampling
    texts: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[PositionLogprobs] | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    _detokenizer: Detokenizer = field(init=False)

    def __post_init__(self) -> None:
        self._detokenizer = Detokenizer(
            self.tokenizer,
            skip_special_tokens=self.params.skip_special_tokens,
            stop=self.params.stops,
            include_stop=self.params.include_stop_str_in_output,
            min_tokens=self.params.min_tokens,
        )
        self.logprobs = None if self.params.logprobs is None else []

    def push(
        self,
        tokens: Sequence[int],
        logprobs: Sequence[TokenLogprobs] | None,
        finish: FinishReason | None,
        stop_id: int | None,
    ) -> TextDelta:
        """Take what the engine sent; `finish_reason` of the returned delta ends the choice.

        stop_id: the stop id that ended it, the last of `tokens`; it has no text, unless the
        request includes stops.
        """
        silent = stop_id is not None and not self.params.include_stop_str_in_output
        before = self._detokenizer.num_tokens
        text = self._detokenizer.push(tokens[:-1] if silent else tokens)
        if finish is not None:
            text += self._detokenizer.end()
        matched = self._detokenizer.matched
        taken = len(tokens) if matched is None else self._detokenizer.num_tokens - before
        if matched is not None:
            self.finish_reason, self.stop_reason = FinishReason.STOP.value, matched
        elif finish is not None:
            asked = stop_id is not None and stop_id in (self.params.stop_token_ids or ())
            self.finish_reason, self.stop_reason = finish.value, stop_id if asked else None
        delta = TextDelta(
            index=self.sampling.choice,
            text=text,
            token_ids=list(tokens[:taken]),
            logprobs=self._logprobs(logprobs, taken),
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
        )
        self._keep(delta)
        return delta

    def output(self) -> CompletionOutput:
        """All deltas so far, put together."""
        total = None
        if self.logprobs is not None:
            pairs = zip(self.token_ids, self.logprobs, strict=True)
            total = sum(position[token_id].logprob for token_id, position in pairs)
        return CompletionOutput(
            index=self.sampling.choice,
            text="".join(self.texts),
            token_ids=list(self.token_ids),
            cumulative_logprob=total,
            logprobs=self.logprobs,
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
        )

    def _logprobs(
        self, entries: Sequence[TokenLogprobs] | None, taken: int
    ) -> list[PositionLogprobs] | None:
        if self.logprobs is None:
            return None
        return [position_logprobs(entry, self.tokenizer) for entry in (entries or ())[:taken]]

    def _keep(self, delta: TextDelta) -> None:
        self.texts.append(delta.text)
        self.token_ids += delta.token_ids
        if self.logprobs is not None:
            self.logprobs += delta.logprobs or []
