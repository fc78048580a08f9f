from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from penstock.core.request import FinishReason, Submission
from penstock.engine.client import Delta
from penstock.errors import EngineDeadError
from tests.llm.fake_client import deltas, logprobs
from tests.server.stage import MESSAGES, TOKENIZER, error_of, events, stage


def text_of(stream: list[Any], index: int = 0) -> str:
    choices = [c for e in stream for c in e["choices"] if c["index"] == index]
    return "".join(c.get("text") or c.get("delta", {}).get("content") or "" for c in choices)


async def test_a_chat() -> None:
    async with stage("Hello, wood!") as s:
        response = await s.chat(request_id="r1", model="demo")
    reply = response.json()
    assert response.headers["x-request-id"] == "r1"
    assert (reply["id"], reply["object"], reply["model"]) == (
        "chatcmpl-r1",
        "chat.completion",
        "demo",
    )
    assert reply["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello, wood!", "refusal": None},
            "logprobs": None,
            "finish_reason": "length",
            "stop_reason": None,
        }
    ]
    prompt, count = len(s.client.submissions[0].prompt), len(TOKENIZER.encode("Hello, wood!"))
    assert reply["usage"] == {
        "prompt_tokens": prompt,
        "completion_tokens": count,
        "total_tokens": prompt + count,
        "prompt_tokens_details": {"cached_tokens": 3},
    }


async def test_a_streamed_chat() -> None:
    async with stage("Hello, wood!") as s:
        response = await s.chat(stream=True, stream_options={"include_usage": True})
    *chunks, last = events(response)
    assert {c["object"] for c in chunks} == {"chat.completion.chunk"}
    assert len({c["id"] for c in chunks}) == 1
    assert all(c["usage"] is None for c in chunks)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert text_of(chunks) == "Hello, wood!"
    assert [c["choices"][0]["finish_reason"] for c in chunks[-2:]] == [None, "length"]
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == len(TOKENIZER.encode("Hello, wood!"))


async def test_usage_with_every_chunk() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    async with stage("a b c") as s:
        stream = events(await s.complete(stream=True, stream_options=options))
    counts = [e["usage"]["completion_tokens"] for e in stream]
    total = len(TOKENIZER.encode("a b c"))
    assert counts == [*range(1, total + 1), total]


async def test_completions_of_every_form_of_prompt() -> None:
    ids = TOKENIZER.encode("Once")
    async with stage(" wood") as s:
        for prompt, expected in [
            ("Once", [ids]),
            (ids, [ids]),
            (["Once", "a"], [ids, TOKENIZER.encode("a")]),
            ([ids, [5]], [ids, [5]]),
        ]:
            s.client.submissions.clear()
            reply = (await s.complete(prompt=prompt, n=2)).json()
            assert [sub.prompt for sub in s.client.submissions] == [
                p for p in expected for _ in "12"
            ]
            assert [c["index"] for c in reply["choices"]] == list(range(2 * len(expected)))
            assert {c["text"] for c in reply["choices"]} == {" wood"}
            assert reply["usage"]["prompt_tokens"] == sum(map(len, expected))


async def test_streams_of_several_prompts_and_choices() -> None:
    async with stage(lambda sub: deltas(TOKENIZER.encode(f" wood {sub.prompt[0]}"))) as s:
        stream = events(await s.complete(prompt=[[5], [6]], n=2, stream=True))
    assert [text_of(stream, i) for i in range(4)] == [" wood 5", " wood 5", " wood 6", " wood 6"]


async def test_echo() -> None:
    async with stage(" wood") as s:
        whole = (await s.complete(prompt="Once", echo=True)).json()
        stream = events(await s.complete(prompt="Once", echo=True, stream=True))
        ids = (await s.complete(prompt=TOKENIZER.encode("Once"), echo=True)).json()
    assert whole["choices"][0]["text"] == "Once wood"
    assert text_of(stream) == "Once wood"
    assert ids["choices"][0]["text"] == "Once wood"


def scored(submission: Submission) -> list[Delta]:
    """Two tokens with logprobs; those of the prompt with the first."""
    first, second = deltas([10, 11])
    if submission.sampling.logprobs is not None:
        first.logprobs, second.logprobs = logprobs([10]), logprobs([11])
    if submission.sampling.prompt_logprobs is not None:
        first.prompt_logprobs = logprobs(submission.prompt[1:])
    if submission.sampling.max_tokens == 1:
        first.finish = FinishReason.LENGTH
        return [first]
    return [first, second]


async def test_logprobs_of_a_chat() -> None:
    """The fake's chosen token is the second best: one alternative leaves it out of the list."""
    async with stage(scored) as s:
        whole = (await s.chat(logprobs=True, top_logprobs=1)).json()
        stream = events(await s.chat(logprobs=True, top_logprobs=2, stream=True))
        bare = (await s.chat(logprobs=True)).json()
    entries = whole["choices"][0]["logprobs"]["content"]
    token, better = (TOKENIZER.token_bytes(i).decode(errors="replace") for i in (10, 11))
    assert [e["logprob"] for e in entries] == [-1.0, -1.0]
    assert entries[0]["token"] == token
    assert entries[0]["bytes"] == list(TOKENIZER.token_bytes(10))
    assert [t["token"] for t in entries[0]["top_logprobs"]] == [better]
    chunks = [c for e in stream for c in e["choices"] if c["logprobs"]]
    assert [t["logprob"] for t in chunks[0]["logprobs"]["content"][0]["top_logprobs"]] == [-0.5, -1]
    assert bare["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []


async def test_legacy_logprobs_with_echo() -> None:
    async with stage(scored) as s:
        whole = (await s.complete(prompt=[5, 6], echo=True, logprobs=2)).json()
        stream = events(await s.complete(prompt=[5, 6], echo=True, logprobs=2, stream=True))
    found = whole["choices"][0]["logprobs"]
    names = [TOKENIZER.token_bytes(i).decode(errors="replace") for i in (5, 6, 10, 11)]
    assert found["tokens"] == names
    assert found["token_logprobs"] == [None, -1.0, -1.0, -1.0]
    assert found["top_logprobs"][0] is None
    assert sorted(found["top_logprobs"][1].values()) == [-1.0, -0.5]
    assert found["text_offset"] == [sum(map(len, names[:i])) for i in range(4)]
    parts = [c["logprobs"] for e in stream for c in e["choices"]]
    assert {key: [x for part in parts for x in part[key]] for key in found} == found


async def test_scoring_a_prompt_alone() -> None:
    """lm-eval asks so: max_tokens 0 with echo and logprobs."""
    async with stage(scored) as s:
        options: Any = {"prompt": [5, 6], "max_tokens": 0, "echo": True, "logprobs": 1}
        whole = (await s.complete(**options)).json()
        stream = events(await s.complete(**options, stream=True))
        neither = await s.complete(max_tokens=0)
    (choice,) = whole["choices"]
    assert choice["text"] == TOKENIZER.decode([5, 6])
    assert choice["logprobs"]["token_logprobs"] == [None, -1.0]
    assert choice["finish_reason"] == "length"
    assert whole["usage"]["completion_tokens"] == 0
    assert text_of(stream) == choice["text"]
    assert error_of(neither)["param"] == "max_tokens"


async def test_prompt_logprobs_and_token_ids() -> None:
    async with stage(scored) as s:
        completion = (
            await s.complete(prompt=[5, 6], prompt_logprobs=1, return_token_ids=True)
        ).json()
        chat = (await s.chat(return_token_ids=True, prompt_logprobs=0)).json()
        stream = events(await s.chat(return_token_ids=True, stream=True))
        single = (await s.complete(prompt=[5], prompt_logprobs=1)).json()
        echoed = (await s.complete(prompt=[5, 6], echo=True, logprobs=1)).json()
    (choice,) = completion["choices"]
    assert (choice["prompt_token_ids"], choice["token_ids"]) == ([5, 6], [10, 11])
    assert choice["prompt_logprobs"][0] is None
    assert choice["prompt_logprobs"][1]["6"]["rank"] == 2
    rendered = s.client.submissions[1].prompt
    assert chat["prompt_token_ids"] == rendered
    assert len(chat["prompt_logprobs"]) == len(rendered)
    assert chat["choices"][0]["token_ids"] == [10, 11]
    assert stream[0]["prompt_token_ids"] == rendered
    choices = [c for e in stream for c in e["choices"]]
    assert [i for c in choices for i in c.get("token_ids", ())] == [10, 11]
    assert single["choices"][0]["prompt_logprobs"] == [None]
    assert "prompt_logprobs" not in echoed["choices"][0]


async def test_a_stop_string_ends_the_answer() -> None:
    async with stage("Hello, wood!") as s:
        whole = (await s.chat(stop=["wo"])).json()
        stream = events(await s.chat(stop="wo", stream=True))
    (choice,) = whole["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Hello, ", "stop")
    assert choice["stop_reason"] == "wo"
    assert text_of(stream) == "Hello, "


def ending(reason: FinishReason) -> Any:
    return lambda sub: deltas(TOKENIZER.encode("Hello, wood"), finish=reason)


async def test_a_deadline() -> None:
    """In a stream what is done counts; a whole reply comes in time or not at all."""
    async with stage(ending(FinishReason.TIMEOUT)) as s:
        whole = await s.complete(timeout=0.5)
        stream = events(await s.complete(timeout=0.5, stream=True))
    assert whole.status_code == 504
    assert error_of(whole)["code"] == "deadline_exceeded"
    assert "0.5 s" in error_of(whole)["message"]
    assert stream[-1]["choices"][0]["finish_reason"] == "timeout"
    assert text_of(stream) == "Hello, wood"


@pytest.mark.parametrize("script", [[], [Delta(tokens=[10])]], ids=["from the start", "in between"])
async def test_a_deadline_that_a_hanging_engine_misses(script: list[Delta]) -> None:
    """The engine ends requests at their deadline; one that hangs must not take clients along."""
    async with stage(lambda sub: script) as s:
        whole = await s.complete(timeout=0.01)
        stream = await s.complete(timeout=0.01, stream=True)
        assert len({name for name, _ in s.client.aborts}) == 2
    assert (whole.status_code, error_of(whole)["code"]) == (504, "deadline_exceeded")
    if script:
        assert events(stream)[-1]["error"]["code"] == "deadline_exceeded"
    else:
        assert (stream.status_code, error_of(stream)["code"]) == (504, "deadline_exceeded")


async def test_a_shutdown_in_the_middle() -> None:
    async with stage(ending(FinishReason.ABORT)) as s:
        whole = await s.complete()
        stream = events(await s.complete(stream=True))
    assert (whole.status_code, error_of(whole)["code"]) == (503, "draining")
    assert stream[-1]["error"]["code"] == "draining"


def dying(after: int) -> Any:
    error = EngineDeadError("The engine died.", retry_after_s=7.0).to_dict()
    end = Delta(finish=FinishReason.ERROR, error=error)
    return lambda sub: [*[Delta(tokens=[10]) for _ in range(after)], end]


async def test_an_engine_that_dies_before_the_first_token() -> None:
    """The status is not sent yet, so it can tell."""
    async with stage(dying(0)) as s:
        for stream in (False, True):
            response = await s.chat(stream=stream)
            assert (response.status_code, response.headers["retry-after"]) == (503, "7")
            assert error_of(response)["code"] == "engine_dead"


async def test_an_engine_that_dies_in_the_middle() -> None:
    async with stage(dying(2)) as s:
        whole = await s.chat()
        stream = events(await s.chat(stream=True))
    assert whole.status_code == 503
    assert text_of(stream[:-1]) == TOKENIZER.decode([10, 10])
    assert stream[-1]["error"]["type"] == "service_unavailable_error"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_who_leaves_aborts_its_work(stream: bool) -> None:
    """The scripted engine never finishes: only the abort ends the request."""
    async with stage(lambda sub: [Delta(tokens=[10])]) as s:
        gone = asyncio.Event()
        body = s.http.build_request(
            "POST", "/v1/chat/completions", json={"messages": MESSAGES, "n": 2, "stream": stream}
        )
        messages: list[Any] = [{"type": "http.request", "body": body.content, "more_body": False}]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None: ...

        transport = s.http._transport
        assert isinstance(transport, httpx.ASGITransport)
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/chat/completions",
            "headers": [],
            "query_string": b"",
        }
        running: asyncio.Task[None] = asyncio.ensure_future(transport.app(scope, receive, send))
        await asyncio.sleep(0.05)
        assert s.service.door.live == len(s.client.submissions) == 2
        gone.set()
        await asyncio.wait_for(running, 2.0)
        ids = {sub.id for sub in s.client.submissions}
        assert {name for name, _ in s.client.aborts} == ids
        assert s.service.door.live == 0
