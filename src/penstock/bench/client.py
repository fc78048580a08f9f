"""One streamed request against an OpenAI-style server, and when its tokens arrived."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from penstock.bench.http import NONE, HttpClient, Response
from penstock.bench.sse import SseParser
from penstock.core.events import Finished, Queued
from penstock.core.request import FinishReason
from penstock.core.timeline import Progress, Timeline


class _Message(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Message | None = None
    token_ids: list[int] | None = None
    finish_reason: str | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode
encode = msgspec.json.encode


@dataclass(slots=True)
class Exchange:
    """What the client saw of one request. Times are perf_counter seconds.

    `arrivals_s` and `counts` are parallel: when a chunk with output arrived, and the tokens that
    it carried (1 where the server does not tell).
    """

    sent_s: float = 0.0
    arrivals_s: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    ended_s: float = 0.0
    """when the last chunk arrived, or when it failed"""
    token_ids: list[int] = field(default_factory=list)
    """of the output, where the server tells them"""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    usage_tokens: int | None = None
    """output tokens as the server's usage counts them"""
    finish_reason: str = ""
    error: str = ""
    """cause in a few words, equal for equal causes; empty when all went well"""
    detail: str = ""
    """the server's own words on the error"""
    status: int = 0
    """HTTP status, 0 when no response came"""

    @property
    def output_tokens(self) -> int:
        return sum(self.counts) if self.usage_tokens is None else self.usage_tokens

    def timeline(self) -> tuple[Timeline, list[float]]:
        """The exchange as the definitions of `core.timeline` see it, and the gaps between tokens.

        Arrived is when the request was sent; finished, when its last chunk was there.
        """
        progress = Progress(Queued("", self.sent_s, self.prompt_tokens))
        gaps = [progress.tokens(at) for at in self.arrivals_s]
        finished = Finished(
            "",
            self.ended_s,
            FinishReason.STOP,
            self.prompt_tokens,
            self.output_tokens,
            self.cached_tokens,
            preemptions=0,
        )
        return progress.finish(finished), [gap for gap in gaps if gap is not None]


async def exchange(
    client: HttpClient, path: str, body: bytes, headers: Mapping[str, str] = NONE
) -> Exchange:
    """Send one streaming request (JSON) and read it to its end; failures are told in `error`."""
    seen = Exchange()
    stream = _Stream(seen)
    try:
        response = await client.post(path, body, stream.feed, headers)
    except TimeoutError:
        seen.error = "timeout"
    except OSError as error:
        seen.error, seen.detail = type(error).__name__, str(error)
    except msgspec.DecodeError as error:
        seen.error, seen.detail = "malformed chunk", str(error)
    else:
        _conclude(seen, response, stream.ended)
    return seen


class _Stream:
    """Reads chunks into an Exchange as they arrive."""

    def __init__(self, seen: Exchange) -> None:
        self._seen = seen
        self._parser = SseParser()
        self.ended = False

    def feed(self, arrived_s: float, piece: bytes) -> None:
        self._seen.ended_s = arrived_s
        for event in self._parser.feed(piece):
            if event == b"[DONE]":
                self.ended = True
            else:
                self._read(arrived_s, _decode(event))

    def _read(self, arrived_s: float, chunk: _Chunk) -> None:
        seen = self._seen
        if chunk.error is not None:
            seen.error, seen.detail = _describe(chunk.error)
        if chunk.usage is not None:
            seen.prompt_tokens = chunk.usage.prompt_tokens
            seen.usage_tokens = chunk.usage.completion_tokens
            details = chunk.usage.prompt_tokens_details
            seen.cached_tokens = (details and details.cached_tokens) or 0
        for choice in chunk.choices:
            seen.finish_reason = choice.finish_reason or seen.finish_reason
            seen.token_ids += choice.token_ids or ()
            tokens = len(choice.token_ids) if choice.token_ids is not None else _has_text(choice)
            if tokens:
                seen.arrivals_s.append(arrived_s)
                seen.counts.append(int(tokens))


def _has_text(choice: _Choice) -> bool:
    delta = choice.delta
    return bool(
        choice.text or (delta and (delta.content or delta.reasoning or delta.reasoning_content))
    )


def _conclude(seen: Exchange, response: Response, ended: bool) -> None:
    seen.sent_s, seen.status = response.sent_s, response.status
    if not response.ok:
        seen.error, seen.detail = _refusal(response)
    elif seen.error:
        pass  # told inside the stream
    elif not ended and not seen.finish_reason:
        seen.error = "no stream" if not seen.counts else "stream ended early"
    elif not seen.counts:
        seen.error = "no tokens"


def _refusal(response: Response) -> tuple[str, str]:
    """Cause and detail of a response that is no 2xx."""
    try:
        body = msgspec.json.decode(bytes(response.body))
    except msgspec.DecodeError:
        return f"HTTP {response.status}", bytes(response.body[:200]).decode("utf-8", "replace")
    error = body.get("error", body) if isinstance(body, dict) else body
    code, detail = _describe(error)
    return f"HTTP {response.status}" + (f" {code}" if code != "error" else ""), detail


def _describe(error: Any) -> tuple[str, str]:
    """(code, message) of an OpenAI-style error object, or of whatever came in its place."""
    if not isinstance(error, dict):
        return "error", str(error)
    code = error.get("code") or error.get("type") or "error"
    return str(code), str(error.get("message", error))


def count_errors(exchanges: list[Exchange]) -> dict[str, int]:
    """Failed exchanges by cause, the commonest first."""
    return dict(Counter(e.error for e in exchanges if e.error).most_common())
