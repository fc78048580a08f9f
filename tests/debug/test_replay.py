"""Must hold: replay from logs alone reproduces every token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock.core.records import RequestRecord
from penstock.debug import replay as replaying
from penstock.debug.replay import Result, config_of
from penstock.errors import ConfigError
from penstock.llm import AsyncLLM
from penstock.llm.offline import start_in_process
from penstock.observe.reader import Log, read
from tests.debug import runs


def replayed(
    log: Log, alter: Callable[[AsyncLLM], None] | None = None, **over: Any
) -> list[Result]:
    (header, *_) = log.headers.values()

    async def run() -> list[Result]:
        llm = await start_in_process(config_of(header, **over))
        try:
            if alter is not None:
                alter(llm)
            return await replaying.replay(llm, log.requests, log.headers)
        finally:
            await llm.close()

    return asyncio.run(run())


def assert_same(log: Log, results: list[Result]) -> None:
    assert [r.record.id for r in results] == [r.id for r in log.requests]
    wrong = [(r.record.id, r.divergences, r.refused) for r in results if not r.same]
    assert wrong == []
    logged = sum(len(choice.ids or ()) for r in log.requests for choice in r.choices)
    assert sum(result.tokens for result in results) == logged > 0
    assert max(result.logprob_error for result in results) == 0.0, "bit for bit"


def test_the_mix_comes_again(log: Log) -> None:
    assert {"abort", "stop", "length"} <= {r.finish for r in log.requests}
    assert sum(r.preemptions for r in log.requests) > 0
    results = replayed(log, model={"max_model_len": 512}, engine={"kv_cache_memory_bytes": 2**24})
    assert_same(log, results)
    assert {name for result in results for name in result.changed} == {"config"}


def cut(log: Log, count: int, **fields: Any) -> Log:
    """Some requests, altered."""
    some = [r for r in log.requests if r.num_output > 4 and r.n == 1 and r.finish == "length"]
    return replace(log, requests=[_altered(record, fields) for record in some[:count]])


def _altered(record: RequestRecord, fields: dict[str, Any]) -> RequestRecord:
    return replace(record, **fields)


def test_where_a_divergence_begins(log: Log) -> None:
    few = cut(log, 4)
    for record in few.requests:
        choice = record.choices[0]
        ids = list(choice.ids or ())
        ids[3] = (ids[3] + 1) % 4096
        record.choices = [replace(choice, ids=ids)]
    headers = {
        start: replace(header, hashes={**header.hashes, "weights": "other"})
        for start, header in log.headers.items()
    }
    for result in replayed(replace(few, headers=headers)):
        (divergence,) = result.divergences
        assert (divergence.choice, divergence.position) == (0, 3)
        assert divergence.replayed == (divergence.logged or 0) - 1
        assert divergence.gap is not None
        assert set(result.changed) == {"weights"}
        assert result.changed["weights"][0] == "other"


def test_what_cannot_be_replayed_is_refused(log: Log) -> None:
    results = replayed(cut(log, 1, prompt_ids=None))
    assert [result.refused for result in results] == ["its ids are redacted"]
    assert not results[0].same
    results = replayed(cut(log, 1, redacted=["params"]))
    assert [result.refused for result in results] == ["its parameters are redacted"]


def test_a_config_of_another_version() -> None:
    header = next(iter(read_any().values()))
    header.config = {"engine": {"max_num_seqs": "many"}}
    with pytest.raises(ConfigError, match="another version"):
        config_of(header)


def read_any() -> dict[str, Any]:
    from penstock.core.records import Header

    return {"s": Header(1, "s", 1, 0.0, 0.0, "h", 1, "0")}


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_five_hundred_mixed_requests(tmp_path: Path, ranks: int) -> None:
    size = {"tensor_parallel_size": ranks, "kv_cache_memory_bytes": 34 * 49152 // ranks}
    runs.record(tmp_path, runs.mixed(500), **size)
    log = read(tmp_path)
    assert len(log.requests) == 500
    assert_same(log, replayed(log))
