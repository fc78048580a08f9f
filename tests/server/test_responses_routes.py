"""/v1/responses over the application with a scripted engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.core.request import FinishReason, Submission
from penstock.engine.client import Delta
from penstock.errors import EngineError
from tests.server.stage import TOKENIZER, Stage, error_of, stage

PATH = "/v1/responses"


@pytest.fixture
async def s(tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage(data_dir=str(tmp_path)) as made:
        yield made
        await made.service.close()


def events_of(text: str) -> list[dict[str, Any]]:
    events = []
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n")
        event = msgspec.json.decode(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(event)
    return events


async def test_an_answer_is_kept_and_gone_on_from(s: Stage) -> None:
    first = (await s.post(PATH, {"input": "One?", "metadata": {"a": "b"}})).json()
    assert (first["object"], first["status"], first["store"]) == ("response", "incomplete", True)
    assert first["output"][0]["content"][0]["text"] == "wood"
    assert first["usage"]["output_tokens"] > 0
    assert (await s.http.get(f"{PATH}/{first['id']}")).json() == first
    again = {"input": "Two?", "previous_response_id": first["id"], "instructions": "Be brief."}
    second = (await s.post(PATH, again)).json()
    prompt = TOKENIZER.decode(s.client.submissions[-1].prompt)
    assert [prompt.find(text) for text in ("Be brief.", "One?", "wood", "Two?")] == sorted(
        prompt.find(text) for text in ("Be brief.", "One?", "wood", "Two?")
    )
    assert "Be brief." in prompt
    third = {"input": "Three?", "previous_response_id": second["id"]}
    assert (await s.post(PATH, third)).status_code == 200
    prompt = TOKENIZER.decode(s.client.submissions[-1].prompt)
    assert "Be brief." not in prompt, "instructions are of one turn"
    assert all(text in prompt for text in ("One?", "Two?", "Three?"))
    items = (await s.http.get(f"{PATH}/{first['id']}/input_items")).json()
    assert items["data"][0]["content"] == [{"type": "input_text", "text": "One?"}]
    assert (await s.http.delete(f"{PATH}/{first['id']}")).json()["deleted"]
    for gone in (
        await s.http.get(f"{PATH}/{first['id']}"),
        await s.post(PATH, third),
        await s.http.get(f"{PATH}/{second['id']}/input_items?after=nothing"),
    ):
        assert (gone.status_code, error_of(gone)["code"]) == (404, "not_found")


async def test_what_is_not_to_be_kept_is_not(s: Stage) -> None:
    made = (await s.post(PATH, {"input": "One?", "store": False})).json()
    assert not made["store"]
    assert (await s.http.get(f"{PATH}/{made['id']}")).status_code == 404


async def test_a_server_without_a_folder_keeps_nothing() -> None:
    async with stage() as bare:
        made = await bare.post(PATH, {"input": "One?"})
        assert (made.status_code, made.json()["store"]) == (200, False)
        refused = await bare.post(PATH, {"input": "One?", "store": True})
        assert (refused.status_code, error_of(refused)["code"]) == (404, "not_enabled")


async def test_a_stream_is_the_same_response_in_events(s: Stage) -> None:
    response = await s.post(PATH, {"input": "One?", "stream": True})
    events = events_of(response.text)
    assert [kind for kind, _ in groupby(event["type"] for event in events)] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    text = "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")
    assert text == "wood"
    last = events[-1]["response"]
    assert last["output"][0]["content"][0]["text"] == "wood"
    assert (await s.http.get(f"{PATH}/{last['id']}")).json() == last


async def test_a_stream_that_breaks_off_says_why() -> None:
    def breaks(submission: Submission) -> list[Delta]:
        error = EngineError("A step failed.").to_dict()
        return [Delta(tokens=[70]), Delta(finish=FinishReason.ERROR, error=error)]

    async with stage(breaks) as s:
        events = events_of((await s.post(PATH, {"input": "One?", "stream": True})).text)
        assert events[-1]["type"] == "response.failed"
        assert events[-1]["response"]["error"]["message"] == "A step failed."
        assert s.service.door.live == 0


async def test_refusals_name_the_field_here(s: Stage) -> None:
    for fields, param in (
        ({"input": "x", "tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"input": []}, "input"),
        ({"input": "x", "max_output_tokens": 10_000}, "max_tokens"),
        ({"input": "x", "background": True}, "background"),
        ({"input": "x", "temperature": -1}, "temperature"),
    ):
        refused = await s.post(PATH, fields)
        assert (refused.status_code, error_of(refused)["param"]) == (400, param)
    assert (await s.post(PATH, {"input": "x", "model": "other"})).status_code == 404
