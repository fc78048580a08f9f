"""From a `Call` to its reply: all at once, or as the frames of a stream."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import TypeVar

from penstock.core.request import FinishReason
from penstock.errors import DeadlineError, DrainingError
from penstock.llm import CompletionOutput, Generation, TextDelta
from penstock.llm.generation import merge
from penstock.server.calls import Call
from penstock.server.replies import Chunks, Json, Prompt, usage_json
from penstock.server.service import Service
from penstock.text.outputs import PositionLogprobs
from penstock.web.sse import DONE

Shown = TypeVar("Shown", TextDelta, CompletionOutput)


async def whole(service: Service, call: Call) -> Json:
    """The reply as one object. Raises what the model raises, and DeadlineError."""
    async with service.running(call) as generations:
        results = [await generation.result() for generation in generations]
        choices, tops = [], {}
        for number, (generation, result) in enumerate(zip(generations, results, strict=True)):
            prompt = _prompt(generation, call)
            tops.update(call.format.top(prompt))
            for output in result.outputs:
                _check_end(output, call)
                index = number * call.params.n + output.index
                choices.append(call.format.choice(index, _shown(output, call), prompt))
        usage = _usage(generations, call)
    return {**_head(service, call, call.format.name), "choices": choices, "usage": usage, **tops}


async def frames(service: Service, call: Call) -> AsyncGenerator[bytes, None]:
    """The reply as server-sent events; the first is there as soon as the first token is."""
    async with service.running(call) as generations:
        chunks = Chunks(_head(service, call, call.format.chunk_name), call.include_usage)
        opened: set[int] = set()
        async for number, delta in merge(generations):
            index = number * call.params.n + delta.index
            if delta.finish_reason == FinishReason.ABORT.value:
                raise _cut_off()
            data, new = b"", index not in opened
            if not (new or delta.text or delta.finish_reason or call.every_token):
                continue  # half a character: nothing to show yet
            usage = _usage(generations, call) if call.continuous_usage else None
            if new:
                opened.add(index)
                prompt = _prompt(generations[number], call)
                opening = call.format.opening(index, prompt)
                if opening is not None:
                    data = chunks.frame(opening, usage, call.format.top(prompt))
            yield data + chunks.frame(call.format.chunk(index, _shown(delta, call)), usage)
        if call.include_usage:
            yield chunks.last(_usage(generations, call))
        yield DONE


def _head(service: Service, call: Call, name: str) -> Json:
    return {
        "id": call.format.id_prefix + call.request_id,
        "object": name,
        "created": int(time.time()),
        "model": call.adapter or service.names[0],
    }


def _prompt(generation: Generation, call: Call) -> Prompt:
    ids, logprobs = generation.prompt_token_ids, generation.prompt_logprobs
    tokenizer, text = call.llm.tokenizer, generation.prompt
    if text is None:
        text = tokenizer.decode(ids) if call.echo else ""
    if logprobs is None and call.params.prompt_logprobs is not None:
        logprobs = [None]  # of a single token, which has no predecessor
    return Prompt(
        text=text,
        token_ids=ids,
        logprobs=logprobs,
        show_logprobs=call.prompt_logprobs,
        first_token=tokenizer.token_bytes(ids[0]).decode(errors="replace"),
    )


def _shown(output: Shown, call: Call) -> Shown:
    """What the client sees of an output: all of it, or nothing when the prompt alone counts."""
    if not call.echo_only:
        return output
    none: list[PositionLogprobs] | None = None if output.logprobs is None else []
    length = FinishReason.LENGTH.value
    return replace(
        output, text="", token_ids=[], logprobs=none, finish_reason=length, stop_reason=None
    )


def _usage(generations: Sequence[Generation], call: Call) -> Json:
    usages = [generation.usage for generation in generations]
    if call.echo_only:
        usages = [replace(usage, completion_tokens=0) for usage in usages]
    return usage_json(usages)


def _check_end(output: CompletionOutput, call: Call) -> None:
    if output.finish_reason == FinishReason.TIMEOUT.value:
        raise DeadlineError(
            f"The request was not finished within its deadline of {call.timeout_s} s.",
            cure="Allow it more time, ask for fewer tokens, or stream to keep what is done.",
        )
    if output.finish_reason == FinishReason.ABORT.value:
        raise _cut_off()


def _cut_off() -> DrainingError:
    return DrainingError(
        "The server shut down before the answer was complete.",
        cure="Send the request again.",
        retry_after_s=5.0,
    )
