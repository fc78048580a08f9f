"""/v1/messages over the application with a scripted engine."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from penstock.core.request import FinishReason, Submission
from penstock.engine.client import Delta
from penstock.errors import EngineError
from tests.server.stage import MESSAGES, TOKENIZER, stage
from tests.server.test_responses_routes import events_of

PATH = "/v1/messages"
LEAST: dict[str, Any] = {"messages": MESSAGES, "max_tokens": 9}


async def test_a_message() -> None:
    async with stage() as s:
        made = (await s.post(PATH, {**LEAST, "system": "Be brief."})).json()
        assert made["content"] == [{"type": "text", "text": "wood"}]
        assert (made["type"], made["role"]) == ("message", "assistant")
        assert made["stop_reason"] == "max_tokens"
        prompt = s.client.submissions[0].prompt
        usage = made["usage"]
        assert usage["input_tokens"] + usage["cache_read_input_tokens"] == len(prompt)
        assert usage["output_tokens"] > 0
        counted = await s.post(
            f"{PATH}/count_tokens", {"messages": MESSAGES, "system": "Be brief."}
        )
        assert counted.json() == {"input_tokens": len(prompt)}


async def test_a_stop_sequence_and_a_prefill() -> None:
    async with stage("wood") as s:
        turns = [*MESSAGES, {"role": "assistant", "content": "It is"}]
        made = (await s.post(PATH, {**LEAST, "messages": turns, "stop_sequences": ["od"]})).json()
        assert made["content"] == [{"type": "text", "text": "wo"}]
        assert (made["stop_reason"], made["stop_sequence"]) == ("stop_sequence", "od")
        assert TOKENIZER.decode(s.client.submissions[0].prompt).endswith("It is")


async def test_a_stream_is_the_same_message_in_events() -> None:
    async with stage() as s:
        events = events_of((await s.post(PATH, {**LEAST, "stream": True})).text)
        assert [kind for kind, _ in groupby(event["type"] for event in events)] == [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
        assert events[0]["message"]["usage"]["output_tokens"] == 0
        assert events[-2]["usage"]["output_tokens"] > 0
        assert events[-2]["delta"]["stop_reason"] == "max_tokens"


async def test_errors_have_anthropics_form() -> None:
    async with stage(api_key=("k",)) as s:
        wrong = await s.post(PATH, LEAST, x_api_key="x")
        assert wrong.status_code == 401
        assert wrong.json()["error"]["type"] == "authentication_error"
        assert (await s.post(PATH, LEAST, x_api_key="k")).status_code == 200
        bad = await s.post(PATH, {**LEAST, "temperature": -1}, authorization="Bearer k")
        assert bad.status_code == 400
        assert bad.json()["type"] == "error"
        assert bad.json()["error"]["type"] == "invalid_request_error"
        missing = await s.post(PATH, {"messages": MESSAGES}, x_api_key="k")
        assert "max_tokens" in missing.json()["error"]["message"]


async def test_a_stream_that_breaks_off_says_why() -> None:
    def breaks(submission: Submission) -> list[Delta]:
        error = EngineError("A step failed.").to_dict()
        return [Delta(tokens=[70]), Delta(finish=FinishReason.ERROR, error=error)]

    async with stage(breaks) as s:
        events = events_of((await s.post(PATH, {**LEAST, "stream": True})).text)
        assert events[-1]["error"] == {"type": "api_error", "message": "A step failed."}
        assert s.service.door.live == 0
