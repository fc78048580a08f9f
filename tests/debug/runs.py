"""Real runs with a log: the demo model in this process, and traffic of all kinds."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from penstock import SamplingParams
from penstock.core.records import Device, Origin
from penstock.llm import AsyncLLM, Generation
from penstock.llm.offline import config_of, start_in_process
from penstock.observe.telemetry import Reader

Script = Callable[[AsyncLLM], Awaitable[None]]
SMALL: dict[str, Any] = {
    "max_num_seqs": 8,
    "max_model_len": 512,
    "kv_cache_memory_bytes": 6 * 2**20,
    "num_threads": 1,
    "log_telemetry_s": 0.1,
}
WORDS = (
    *("the", "old", "miller", "walked", "down", "to", "the", "river", "and", "saw", "a", "fox"),
    *("who", "asked", "him", "for", "bread"),
)


def record(
    folder: Path,
    script: Script,
    alter: Callable[[AsyncLLM], None] | None = None,
    sensor: Callable[[], list[Device] | None] | None = None,
    **options: Any,
) -> None:
    """Run a script against a model that logs into the folder. alter: breaks something first;
    sensor: reads the accelerators; options: of the configuration."""

    async def run() -> None:
        llm = await start_in_process(config_of(**{**SMALL, **options}, log_dir=str(folder)))
        try:
            assert llm.log is not None
            llm.log.watch(Reader(gpus=sensor or (lambda: None)))
            if alter is not None:
                alter(llm)
            await script(llm)
        finally:
            await llm.close()

    asyncio.run(run())


def text(seed: int, words: int) -> str:
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) for _ in range(words)).capitalize()


async def ask(llm: AsyncLLM, prompt: Any, cancel_after: int | None = None, **options: Any) -> Any:
    """One request from its door to its socket; returns its output. options: SamplingParams fields,
    `session`, `template` of chats, `add_special_tokens`, and `reads_s`, which slow clients take."""
    session = options.pop("session", "")
    reads_s = options.pop("reads_s", 0.0)
    own = ("template", "add_special_tokens", "cache_salt")
    more: dict[str, Any] = {name: options.pop(name) for name in own if name in options}
    is_chat = isinstance(prompt, list) and prompt and isinstance(prompt[0], dict)
    endpoint = "chat" if is_chat else "completions"
    origin = Origin(endpoint=endpoint, key="k", sends=True, parsed_s=llm.clock.now())
    params = SamplingParams(**options)
    more |= {"session": session, "origin": origin}
    if is_chat:
        generation = await llm.chat(prompt, params, **more)
    else:
        generation = await llm.generate(prompt, params, **more)
    try:
        if cancel_after is None:
            return await generation.result()
        return await _some(generation, cancel_after)
    finally:
        if reads_s:
            await asyncio.sleep(reads_s)
        if llm.log is not None:
            llm.log.sent(origin)


async def _some(generation: Generation, tokens: int) -> Any:
    async with generation:
        async for _ in generation:
            if generation.usage.completion_tokens >= tokens:
                break
    return generation.output()


def mixed(count: int) -> Script:
    """Sampling, penalties, n, logprobs, cancels, stop strings, minimum lengths, bad words, shared
    prefixes and more work than the cache holds."""
    shared = text(0, 40)

    async def script(llm: AsyncLLM) -> None:
        tasks = []
        for i in range(count):
            rng = random.Random(i)
            prompt = f"{shared} {text(i, 8)}" if i % 3 == 0 else text(i, rng.randint(5, 60))
            options: dict[str, Any] = {"max_tokens": rng.randint(4, 100), "ignore_eos": i % 2 == 0}
            if i % 4:
                options |= {"temperature": rng.choice([0.7, 1.0, 1.3]), "top_p": 0.95}
            else:
                options |= {"temperature": 0.0}
            kinds: list[dict[str, Any]] = [
                {"repetition_penalty": 1.2, "frequency_penalty": 0.5, "presence_penalty": 0.3},
                {"n": 3, "seed": i},
                {"logprobs": 2},
                {"stop": ["the", "he"]},
                {"cancel_after": 3},
                {"top_k": 20, "min_p": 0.02, "bad_words": ["fox", "bread"]},
                {"min_tokens": 3, "ignore_eos": True},
                {"logit_bias": {100: 5.0}, "prompt_logprobs": 1},
            ]
            options |= kinds[i % len(kinds)]
            tasks.append(asyncio.create_task(ask(llm, prompt, **options)))
        await asyncio.gather(*tasks)

    return script


def turns(
    sessions: int = 4, count: int = 4, edit: Callable[[str, int], str] | None = None
) -> Script:
    """Sessions whose every prompt holds all that was said before, as ids; `edit` changes the text
    of a turn, which is then encoded anew."""

    async def one(llm: AsyncLLM, number: int) -> None:
        said = text(number, 60)
        ids = await llm.tokenize(said)
        for turn in range(count):
            given: Any = ids if edit is None else edit(said, turn)
            output = await ask(llm, given, session=f"s{number}", max_tokens=12, temperature=0.8)
            more = f" {text(1000 * number + turn, 5)}"
            said += output.outputs[0].text + more
            ids = ids + output.outputs[0].token_ids + await llm.tokenize(more)

    async def script(llm: AsyncLLM) -> None:
        await asyncio.gather(*(one(llm, number) for number in range(sessions)))

    return script
