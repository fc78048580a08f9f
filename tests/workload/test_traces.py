"""Every format is read as it is published; what cannot be used is told with file, line and cure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import ConfigError
from penstock.workload import traces
from penstock.workload.traces import FORMATS, detect, parse

DATA = Path(__file__).parent.parent / "data" / "traces"
NAMES = (
    "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type"
)
BURSTGPT = f"""{NAMES}
5,,1.5,ChatGPT,472,18,490,Conversation log
45,7,2.0,ChatGPT,1087,230,1317,Conversation log
118,7,0.1,GPT-4,417,0,417,API log
130,8,0.9,GPT-4,20,276,296,API log
"""
BAILIAN = [
    {"chat_id": 159, "parent_chat_id": -1, "timestamp": 61.1, "input_length": 40,
     "output_length": 132, "type": "text", "turn": 1, "hash_ids": [1, 2, 3]},
    {"chat_id": 160, "parent_chat_id": 159, "timestamp": 70.5, "input_length": 60,
     "output_length": 9, "type": "text", "turn": 2, "hash_ids": [1, 2, 3, 9]},
]  # fmt: skip


def lines(name: str) -> list[str]:
    return (DATA / name).read_text().splitlines()


def test_azure() -> None:
    trace = parse(lines("azure_conv.csv"), "azure.csv")
    assert trace.format == "azure"
    assert len(trace.rows) == 59
    assert [(r.input_tokens, r.output_tokens) for r in trace.rows[:2]] == [(374, 44), (396, 109)]
    assert trace.rows[0].at_s == 0
    assert trace.rows[1].at_s == pytest.approx(50.9951690 - 46.6805900, abs=1e-6)


def test_mooncake() -> None:
    trace = parse(lines("mooncake_conversation.jsonl"), "m.jsonl")
    assert (trace.format, trace.block_tokens, len(trace.rows)) == ("mooncake", 512, 40)
    assert trace.rows[0].blocks[:2] == (0, 1)
    assert (
        trace.rows[-1].at_s
        == json.loads(lines("mooncake_conversation.jsonl")[-1])["timestamp"] / 1000
    )


def test_burstgpt_leaves_failures_out_and_says_so() -> None:
    trace = parse(BURSTGPT.splitlines(), "b.csv")
    assert trace.format == "burstgpt"
    assert [r.at_s for r in trace.rows] == [0, 40, 125]
    assert [r.session for r in trace.rows] == ["", "7", "8"]
    assert trace.notes == ("1 lines left out: without output (failed, or cut off by the client)",)


def test_bailian_links_turns() -> None:
    trace = parse(map(json.dumps, BAILIAN), "q.jsonl")
    assert (trace.format, trace.block_tokens) == ("bailian", 16)
    assert trace.rows[1].parent == trace.rows[0].id == "159"


def test_servegen_total_rates() -> None:
    trace = parse(lines("servegen_total_rates.csv"), "s.csv")
    assert trace.format == "servegen"
    assert trace.rates[0] == (0, 809.76167)
    assert trace.duration_s == 144 * 600


def test_servegen_clients_are_summed_with_and_without_header() -> None:
    head = "client,t_s,rate_per_s,cv,pattern,param1,param2"
    rows = ["0,0,2,1.0,Gamma,1,1", "1,0,1,4.0,Gamma,1,1", "0,600,3,1.0,Gamma,1,1"]
    trace = parse([head, *rows], "c.csv")
    assert trace.rates == ((0, 3), (600, 3))
    assert trace.rates_cv == pytest.approx(1.5)
    bare = parse(["0,2,1.0,Gamma,1,1", "600,3,1.0,Gamma,1,1"], "chunk-0-trace.csv")
    assert bare.rates == ((0, 2), (600, 3))


def test_servegen_of_several_models_is_refused() -> None:
    text = ["model,t_s,total_rate_per_s,active_clients", "a,0,1,1", "b,0,1,1"]
    with pytest.raises(ConfigError, match="2 models"):
        parse(text, "s.csv")


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ([], "t:1", "empty"),
        (["what,is,this"], "t:1", "format is unknown"),
        (["TIMESTAMP,ContextTokens,GeneratedTokens"], "t", "no requests"),
        (["TIMESTAMP,ContextTokens,GeneratedTokens", "2023-11-16 18:15:46.68,,44"],
         "t:2", "ContextTokens: is missing"),
        (["TIMESTAMP,ContextTokens,GeneratedTokens", "", "yesterday,10,44"],
         "t:3", "not a date"),
        (["TIMESTAMP,ContextTokens,GeneratedTokens", "2023-11-16 18:15:46.68,-4,44"],
         "t:2", "negative"),
        (["TIMESTAMP,ContextTokens,GeneratedTokens", "2023-11-16 18:15:46.68,many,44"],
         "t:2", "not a number"),
        (["TIMESTAMP,ContextTokens,GeneratedTokens", "2023-11-16 18:15:46.68,0,44"],
         "t:2", "A prompt has a token"),
        (['{"timestamp": -5, "input_length": 5, "output_length": 5}'], "t:1", "negative"),
        (['{"timestamp": 1, "input_length": 5, "output_length": 5}', "{oops"], "t:2", "not JSON"),
        (['{"timestamp": 9, "input_length": 5, "output_length": 5}',
          '{"timestamp": 1, "input_length": 5, "output_length": 5}'], "t:2", "comes after"),
        (['{"timestamp": 1, "input_length": 5, "output_length": 5, "hash_ids": [1, 2]}'],
         "t:1", "2 blocks of 512 for 5 tokens"),
        (['{"timestamp": 1, "input_length": 5.5, "output_length": 5}'], "t:1", "whole number"),
        (["t_s,rate_per_s,cv", "0,-1,1"], "t:2", "negative"),
    ],
)  # fmt: skip
def test_bad_lines_are_told_with_their_place(text: list[str], place: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "t")
    assert str(caught.value).startswith(f"{place}:")
    assert words in str(caught.value)
    assert caught.value.cure


def test_holes_are_found_and_can_be_closed() -> None:
    times = [*range(100), *range(2000, 2100), *range(9000, 9010)]
    rows = [
        json.dumps({"timestamp": t * 1000, "input_length": 5, "output_length": 5}) for t in times
    ]
    trace = parse(rows, "t")
    assert [(hole.line, hole.at_s, hole.length_s) for hole in trace.holes] == [
        (101, 99, 1901),
        (201, 2099, 6901),
    ]
    closed = trace.without_holes()
    assert closed.holes == ()
    assert closed.duration_s == trace.duration_s - 1901 - 6901
    steady = [json.dumps({"timestamp": t * 90_000, "input_length": 5, "output_length": 5})
              for t in range(50)]  # fmt: skip
    assert parse(steady, "t").holes == ()


@given(st.text(max_size=60), st.lists(st.text(max_size=40), max_size=3))
def test_any_text_is_read_or_refused(first: str, rest: list[str]) -> None:
    try:
        trace = parse([first, *rest], "t")
    except ConfigError:
        return
    assert trace.rows or trace.rates


def test_every_format_is_named() -> None:
    assert set(FORMATS) == {"azure", "burstgpt", "mooncake", "bailian", "servegen", "otel"}
    assert detect('{"resourceSpans": []}') == "otel"
    assert traces.__doc__ is not None
    assert all(f"| {name} |" in traces.__doc__ for name in FORMATS)
