from __future__ import annotations

import asyncio

import pytest

from penstock.core.clock import ManualClock
from penstock.core.request import FinishReason, Submission
from penstock.engine.client import Delta
from penstock.errors import EngineDeadError, EngineError
from penstock.llm import AsyncLLM, SamplingParams, TextDelta
from tests import vocabularies as made
from tests.llm.fake_client import FakeClient, deltas, llm_over, logprobs, saying

TOKENIZER = made.byte_level()
TEXT = "Hello wood. The fox said nothing 👋 at all."


def llm(text: str = TEXT, size: int = 1) -> tuple[AsyncLLM, FakeClient]:
    client = FakeClient(saying(TOKENIZER, text, size))
    return llm_over(client, TOKENIZER), client


async def test_deltas_add_up_to_the_result() -> None:
    model, client = llm()
    generation = await model.generate("Once", SamplingParams(), request_id="r")
    seen = [delta async for delta in generation]
    assert "".join(delta.text for delta in seen) == TEXT
    assert "\ufffd" not in "".join(delta.text for delta in seen)
    assert [delta.finish_reason for delta in seen] == [None] * (len(seen) - 1) + ["length"]
    output = generation.output()
    assert output.outputs[0].text == TEXT
    assert output.outputs[0].token_ids == TOKENIZER.encode(TEXT)
    assert output.prompt == "Once"
    assert output.prompt_token_ids == TOKENIZER.encode("Once")
    assert output.finished
    usage = generation.usage
    assert usage.prompt_tokens == len(output.prompt_token_ids)
    assert usage.completion_tokens == len(TOKENIZER.encode(TEXT))
    assert usage.cached_tokens == output.num_cached_tokens == 3
    assert client.aborts == []
    with pytest.raises(StopAsyncIteration):
        await anext(generation)


@pytest.mark.parametrize("size", [1, 2, 100])
async def test_a_stop_string_aborts_the_engine(size: int) -> None:
    model, client = llm(size=size)
    generation = await model.generate("Once", SamplingParams(stop="fox"), request_id="r")
    output = await generation.result()
    (one,) = output.outputs
    assert one.text == "Hello wood. The "
    assert (one.finish_reason, one.stop_reason) == ("stop", "fox")
    assert TOKENIZER.decode(one.token_ids) == "Hello wood. The fox"
    assert generation.usage.completion_tokens == len(one.token_ids)
    assert client.aborts == ([("r", FinishReason.STOP)] if size < 100 else [])


async def test_choices_are_merged() -> None:
    texts = ["Hello", "wood, wood, wood", "fox"]
    client = FakeClient(lambda s: deltas(TOKENIZER.encode(texts[s.sampling.choice])))
    model = llm_over(client, TOKENIZER)
    params = SamplingParams(n=3, prompt_logprobs=1)
    generation = await model.generate("Once", params, request_id="r")
    seen: list[TextDelta] = [delta async for delta in generation]
    assert [output.text for output in generation.output().outputs] == texts
    assert len({delta.index for delta in seen[:3]}) == 3, "side by side"
    assert [s.id for s in client.submissions] == ["r-0", "r-1", "r-2"]
    assert {s.group for s in client.submissions} == {"r"}
    assert [s.sampling.choice for s in client.submissions] == [0, 1, 2]
    assert [s.sampling.prompt_logprobs for s in client.submissions] == [1, None, None]
    assert {s.sampling.seed for s in client.submissions} == {77}
    assert generation.usage.prompt_tokens == len(TOKENIZER.encode("Once"))
    assert generation.usage.completion_tokens == sum(len(TOKENIZER.encode(t)) for t in texts)


async def test_one_choice_stops_and_the_others_go_on() -> None:
    client = FakeClient(
        lambda s: deltas(TOKENIZER.encode("a fox" if s.sampling.choice else "a wood and a wood"))
    )
    model = llm_over(client, TOKENIZER)
    generation = await model.generate("Once", SamplingParams(n=2, stop=" and"), request_id="r")
    first, second = (await generation.result()).outputs
    assert (first.text, first.stop_reason) == ("a wood", " and")
    assert (second.text, second.stop_reason) == ("a fox", None)
    assert client.aborts == [("r-0", FinishReason.STOP)]


async def test_logprobs() -> None:
    def script(submission: Submission) -> list[Delta]:
        ids = TOKENIZER.encode("a fox")
        prompt = submission.prompt[1:]
        first = Delta(ids[:1], logprobs(ids[:1]), prompt_logprobs=logprobs(prompt))
        return [first, Delta(ids[1:], logprobs(ids[1:]), finish=FinishReason.LENGTH)]

    model = llm_over(FakeClient(script), TOKENIZER)
    generation = await model.generate("Once upon", SamplingParams(logprobs=2, prompt_logprobs=2))
    output = await generation.result()
    (one,) = output.outputs
    assert [next(iter(p)) for p in one.logprobs or []] == one.token_ids
    assert one.cumulative_logprob == -1.0 * len(one.token_ids)
    assert output.prompt_logprobs is not None
    assert output.prompt_logprobs[0] is None
    chosen = [next(iter(p)) for p in output.prompt_logprobs[1:] if p is not None]
    assert chosen == output.prompt_token_ids[1:]
    single = await model.generate([5], SamplingParams(prompt_logprobs=2))
    assert single.prompt_logprobs == [None], "no delta brings any for a single token"


async def test_leaving_early_aborts() -> None:
    model, client = llm()
    async with await model.generate("Once", request_id="r") as generation:
        await anext(generation)
    assert client.aborts == [("r", FinishReason.ABORT)]
    await generation.aclose()
    assert len(client.aborts) == 1
    assert generation.output().outputs[0].finish_reason == "abort"


@pytest.mark.parametrize("n", [1, 2])
async def test_cancelling_the_reader_aborts(n: int) -> None:
    client = FakeClient(lambda submission: [Delta(tokens=[5])])  # and then silence
    model = llm_over(client, TOKENIZER)
    generation = await model.generate("Once", SamplingParams(n=n), request_id="r")
    task = asyncio.create_task(generation.result())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [name for name, _ in client.aborts] == (["r"] if n == 1 else ["r-0", "r-1"])
    await asyncio.sleep(0)
    assert [t for t in asyncio.all_tasks() if t is not asyncio.current_task()] == []


async def test_the_engines_reasons_come_through() -> None:
    client = FakeClient(lambda s: deltas(TOKENIZER.encode("a fox"), 2, FinishReason.TIMEOUT))
    generation = await llm_over(client, TOKENIZER).generate("Once")
    assert (await generation.result()).outputs[0].finish_reason == "timeout"


async def test_an_error_in_one_choice_is_raised_and_ends_the_others() -> None:
    def script(submission: Submission) -> list[Delta]:
        if submission.sampling.choice == 0:
            return [Delta(tokens=[5])]
        error = EngineDeadError("It fell over.", cure="Restart it.").to_dict()
        return [Delta(tokens=[5]), Delta(finish=FinishReason.ERROR, error=error)]

    client = FakeClient(script)
    generation = await llm_over(client, TOKENIZER).generate(
        "Once", SamplingParams(n=2), request_id="r"
    )
    with pytest.raises(EngineDeadError, match=r"fell over\. Restart"):
        await generation.result()
    assert [name for name, _ in client.aborts] == ["r-0", "r-1"]


async def test_a_stream_without_an_end_is_an_error() -> None:
    client = FakeClient(lambda submission: [Delta(tokens=[5])])
    client.aborts.append(("r", FinishReason.ABORT))
    client.script = lambda submission: []
    generation = await llm_over(client, TOKENIZER).generate("Once", request_id="r")
    with pytest.raises(EngineError, match="without an end"):
        await generation.result()


async def test_metrics() -> None:
    clock = ManualClock(10.0)

    def script(submission: Submission) -> list[Delta]:
        assert submission.arrival_s == 9.0
        assert submission.deadline_s == 60.0
        return deltas([5, 6])

    client = FakeClient(script)
    model = AsyncLLM(client, client.info, TOKENIZER, clock=clock)
    generation = await model.generate("Once", arrival_s=9.0, deadline_s=60.0)
    clock.advance(1)
    await anext(generation)
    clock.advance(1)
    await anext(generation)
    times = generation.metrics
    assert (times.arrival_s, times.submitted_s, times.first_token_s) == (9.0, 10.0, 11.0)
    assert (times.last_token_s, times.finished_s) == (12.0, 12.0)
