from __future__ import annotations

from pathlib import Path

import pytest

from penstock.debug.query import query
from penstock.errors import ConfigError
from penstock.observe.reader import Log


def test_views_agree_with_the_records(folder: Path, log: Log) -> None:
    (last,) = sorted(folder.iterdir())[-1:]
    with last.open("ab") as file:
        file.write(b'{"t":"request","id":"torn')
    try:
        names, rows = query(
            folder,
            "SELECT count(*) AS n, sum(num_output) AS tokens, sum(len(prompt_ids)) FROM requests",
        )
        choices = query(folder, "SELECT count(*), sum(num_generated) FROM choices")[1]
        steps = query(folder, "SELECT count(*), sum(prefill_tokens), max(step_us) FROM steps")[1]
        telemetry = query(folder, "SELECT count(*) > 0, bool_and(gpus IS NULL) FROM telemetry")[1]
    finally:
        last.write_bytes(last.read_bytes().rpartition(b"\n")[0] + b"\n")
    assert names[:2] == ["n", "tokens"]
    assert rows == [
        (69, sum(r.num_output for r in log.requests), sum(r.num_prompt for r in log.requests))
    ]
    every = [choice for record in log.requests for choice in record.choices]
    assert choices == [(len(every), sum(choice.num_generated for choice in every))]
    table = [row for part in log.steps.values() for row in part.rows]
    assert steps[0][:2] == (len(table), sum(row.prefill_tokens for row in table))
    assert telemetry == [(True, True)]
    assert query(folder, "SELECT DISTINCT hashes->>'weights' IS NULL FROM headers")[1] == [(False,)]


def test_what_duckdb_refuses_is_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="DuckDB"):
        query(folder, "SELECT colour FROM requests")
    with pytest.raises(ConfigError, match="holds no segments"):
        query(tmp_path, "SELECT 1")
