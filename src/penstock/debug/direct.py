"""Ids straight to an engine client and back, beside the facade: no text, no record of its own."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence

from penstock.core.request import Adapter, Sampling, Submission
from penstock.engine.client import Delta, EngineClient
from penstock.errors import from_dict

_serial = itertools.count()


async def deltas(
    client: EngineClient,
    name: str,
    prompt: Sequence[int],
    sampling: Sampling,
    salt: str = "",
    adapter: Adapter | None = None,
) -> AsyncIterator[Delta]:
    """Raises what the engine answers."""
    unique = f"{name}-{sampling.choice}-{next(_serial)}"
    submission = Submission(unique, list(prompt), sampling, cache_salt=salt, adapter=adapter)
    (stream,) = client.submit([submission])
    async for delta in stream:
        if delta.error is not None:
            raise from_dict(delta.error)
        yield delta


async def generate(
    client: EngineClient,
    name: str,
    prompt: Sequence[int],
    sampling: Sampling,
    salt: str = "",
    adapter: Adapter | None = None,
) -> tuple[list[int], list[float]]:
    """(ids, their logprobs where asked for). Raises as `deltas`."""
    ids: list[int] = []
    logprobs: list[float] = []
    async for delta in deltas(client, name, prompt, sampling, salt, adapter):
        ids += delta.tokens
        logprobs += [entry.logprob for entry in delta.logprobs or ()]
    return ids, logprobs
