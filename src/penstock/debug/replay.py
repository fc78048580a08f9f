"""Logged requests generated again from the log alone, and compared token by token.

A token depends on prompt, parameters, seed, choice and position, and on nothing else that the log
does not fingerprint: so on a fresh engine every one of them must come again. Where one does not,
the engine is asked for the logprobs of both tokens there, and the fingerprints that differ are
named.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from penstock.config import Config
from penstock.core.records import ChoiceRecord, Header, RequestRecord
from penstock.core.request import Adapter, Sampling
from penstock.debug.direct import deltas, generate
from penstock.engine import peft
from penstock.errors import ConfigError, PenstockError
from penstock.llm import AsyncLLM

ENDED_BY_READER = ("abort", "timeout", "error")


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first token of a choice that came out otherwise; None: the answer ended there."""

    choice: int
    position: int
    logged: int | None
    replayed: int | None
    gap: float | None = None
    """logprob of the replayed token less that of the logged one, on the engine that replays"""


@dataclass(slots=True)
class Result:
    record: RequestRecord
    tokens: int = 0
    """compared"""
    divergences: list[Divergence] = field(default_factory=list)
    logprob_error: float = 0.0
    """the largest difference of logprobs, where they were logged"""
    refused: str = ""
    """why it could not be replayed"""
    changed: dict[str, tuple[str, str]] = field(default_factory=dict)
    """fingerprints that differ: (logged, now)"""

    @property
    def same(self) -> bool:
        return not self.divergences and not self.refused


def config_of(header: Header, **over: dict[str, Any]) -> Config:
    """The configuration that wrote a log, as far as tokens depend on it. over: options by section
    that take the place of the logged ones. Raises ConfigError."""
    sections = {name: {**header.config.get(name, {}), **over.get(name, {})} for name in _SECTIONS}
    try:
        return msgspec.convert(sections, Config).check()
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"The log's configuration is of another version: {error}.",
            cure="Replay it with the version that wrote it.",
        ) from None


_SECTIONS = ("model", "engine")


async def replay(
    llm: AsyncLLM,
    records: Iterable[RequestRecord],
    headers: dict[str, Header],
    told: Callable[[Result], None] = lambda result: None,
) -> list[Result]:
    """Results in the order of the records; `told` hears of each as soon as it is there."""
    hashes: dict[str, str] = (await asyncio.to_thread(llm.identity))["hashes"]
    results: dict[int, Result] = {}
    queue = iter(enumerate(records))

    async def work() -> None:
        for index, record in queue:
            header = headers.get(record.start)
            logged = header.hashes if header is not None else {}
            result = await replay_one(llm, record)
            result.changed |= {
                name: (value, hashes.get(name, ""))
                for name, value in logged.items()
                if value != hashes.get(name)
            }
            results[index] = result
            told(result)

    await asyncio.gather(*(work() for _ in range(2 * llm.info.max_num_seqs)))
    return [results[index] for index in sorted(results)]


async def replay_one(llm: AsyncLLM, record: RequestRecord) -> Result:
    result = Result(record)
    if record.prompt_ids is None or any(choice.ids is None for choice in record.choices):
        result.refused = "its ids are redacted"
        return result
    if "params" in record.redacted:
        result.refused = "its parameters are redacted"
        return result
    try:
        await _check_adapter(llm, result)
    except PenstockError as error:
        result.refused = str(error)
        return result
    for choice in record.choices:
        if not choice.ids:
            continue
        try:
            await _compare(llm, record, choice, result)
        except PenstockError as error:
            result.refused = str(error)
            return result
    return result


async def _check_adapter(llm: AsyncLLM, result: Result) -> None:
    """Raises what keeps the adapter of the record from being used here."""
    adapter, room = adapter_of(result.record), llm.info.adapters
    if adapter is None:
        return
    if room is None:
        raise ConfigError("This engine has no slots for adapters.", cure="Give --max-loras.")
    now = await asyncio.to_thread(peft.check, adapter.name, adapter.path, room)
    if now.digest != adapter.digest:
        result.changed["adapter"] = (adapter.digest, now.digest)


async def _compare(
    llm: AsyncLLM, record: RequestRecord, choice: ChoiceRecord, result: Result
) -> None:
    logged, prompt = choice.ids or [], record.prompt_ids or []
    name = f"replay-{record.id}"
    ids, logprobs = await generate(
        llm.client, name, prompt, sampling_of(record, choice), adapter=adapter_of(record)
    )
    result.tokens += len(logged)
    place = next((i for i, (a, b) in enumerate(zip(logged, ids, strict=False)) if a != b), None)
    if place is None and len(ids) != len(logged):
        place = min(len(ids), len(logged))
    if place is None:
        pairs = zip(choice.logprobs or (), logprobs, strict=False)
        errors = [abs(a - b) for a, b in pairs]
        result.logprob_error = max([result.logprob_error, *errors])
        return
    was = logged[place] if place < len(logged) else None
    now = ids[place] if place < len(ids) else None
    gap = None
    if was is not None and now is not None:
        before = [*prompt, *logged[:place]]
        gap = await _logprob(llm, record, before, now)
        gap -= await _logprob(llm, record, before, was)
    result.divergences.append(Divergence(choice.index, place, was, now, gap))


def sampling_of(record: RequestRecord, choice: ChoiceRecord) -> Sampling:
    """What the engine was asked for; where not the engine ended it, only as many tokens again."""
    sampling = msgspec.convert(record.sampling, Sampling)
    sampling = replace(sampling, seed=record.seed, choice=choice.index, prompt_logprobs=None)
    by_text = isinstance(choice.stop_reason, str)
    if choice.finish in ENDED_BY_READER or by_text:
        most = len(choice.ids or ())
        least = min(sampling.min_tokens, most)
        return replace(sampling, max_tokens=most, min_tokens=least)
    return sampling


def adapter_of(record: RequestRecord) -> Adapter | None:
    return None if record.adapter is None else Adapter(**record.adapter)


async def _logprob(
    llm: AsyncLLM, record: RequestRecord, before: Sequence[int], token: int
) -> float:
    """Of `token` behind `before`, by the model alone."""
    sampling = Sampling(temperature=0.0, max_tokens=1, prompt_logprobs=0)
    found = float("nan")
    async for delta in deltas(
        llm.client,
        f"replay-{record.id}",
        [*before, token],
        sampling,
        adapter=adapter_of(record),
    ):
        if delta.prompt_logprobs:
            found = delta.prompt_logprobs[-1].logprob
    return found
