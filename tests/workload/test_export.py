"""Other tools' inputs hold the same times, lengths and shared prefixes."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice

import pytest

from penstock.errors import ConfigError
from penstock.workload.archetypes import background_agent, chatbot, data_processor
from penstock.workload.definition import Window
from penstock.workload.export import BLOCK_TOKENS, TOOLS, export
from penstock.workload.sessions import Generator, TimedRequest
from penstock.workload.traces import parse

CHATBOT = replace(chatbot(), window=Window("2026-11-02", 86400.0))


@pytest.fixture(scope="module")
def requests() -> list[TimedRequest]:
    return list(islice(Generator(CHATBOT).requests(), 400))


@pytest.mark.parametrize("tool", ["guidellm", "aiperf"])
def test_mooncake_rows_are_read_back(tool: str, requests: list[TimedRequest]) -> None:
    made = export(CHATBOT, requests, tool, "http://h:1", "m")
    rows = [json.loads(row) for row in made.files["requests.jsonl"].splitlines()]
    scale = 1.0 if tool == "guidellm" else 1000.0
    for row, request in zip(rows, requests, strict=True):
        at = (request.at_s - requests[0].at_s) * scale
        assert row["timestamp"] == pytest.approx(at, abs=0.51 if tool == "aiperf" else 1e-5)
        assert (row["input_length"], row["output_length"]) == (
            request.input_tokens,
            request.output_tokens,
        )
        assert len(row["hash_ids"]) == -(-request.input_tokens // BLOCK_TOKENS)
        assert max(row["hash_ids"]) < 2**31
    shared = len([i for row in rows for i in row["hash_ids"]])
    assert len({i for row in rows for i in row["hash_ids"]}) < shared
    if tool == "aiperf":
        assert len(parse(made.files["requests.jsonl"].splitlines(), "r").rows) == 400
        assert '--goodput "time_to_first_token:450 inter_token_latency:40"' in made.command
    assert "http://h:1" in made.command


def test_inference_perf_reads_json_as_yaml_and_an_azure_trace(
    requests: list[TimedRequest],
) -> None:
    made = export(CHATBOT, requests, "inference-perf", "http://h:1", "m")
    config = json.loads(made.files["config.yml"])
    assert config["load"]["type"] == "trace_replay"
    assert config["report"]["goodput"]["constraints"] == {"ttft": 0.45, "tpot": 0.04}
    stage = config["load"]["stages"][0]
    assert stage["rate"] * stage["duration"] == pytest.approx(400, rel=1e-3)
    trace = parse(made.files["trace.csv"].splitlines(), "trace.csv")
    assert trace.format == "azure"
    assert [r.input_tokens for r in trace.rows] == [r.input_tokens for r in requests]
    last = requests[-1].at_s - requests[0].at_s
    assert trace.rows[-1].at_s == pytest.approx(last, abs=1e-3)


@pytest.mark.parametrize("tool", TOOLS)
def test_what_is_left_out_is_told(tool: str, requests: list[TimedRequest]) -> None:
    notes = " ".join(export(CHATBOT, requests, tool, "u", "m").notes)
    assert "later turns" in notes
    assert "regions" in notes
    assert "prefixes" in notes
    short = replace(background_agent(), window=Window("2026-11-02", 86400.0))
    assert export(short, requests, tool, "u", "m").notes
    assert export(data_processor(), requests, tool, "u", "m").notes


def test_no_requests_and_unknown_tools_are_refused(requests: list[TimedRequest]) -> None:
    with pytest.raises(ConfigError, match="No session"):
        export(CHATBOT, [], "guidellm", "u", "m")
    with pytest.raises(ConfigError, match="no known tool"):
        export(CHATBOT, requests, "ab", "u", "m")


def test_a_model_name_with_blanks_is_quoted(requests: list[TimedRequest]) -> None:
    assert "--model 'my model'" in export(CHATBOT, requests, "aiperf", "u", "my model").command
