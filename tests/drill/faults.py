"""Faults, each injected into a real run of the demo model that logs: the tokenizer, the sampler,
the scheduler or the runner is broken on purpose, a client misbehaves, or a sensor reads what a
failing machine would show."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from penstock.core.blocks import BlockPool
from penstock.core.scheduler import Scheduler
from penstock.engine.hub import DEMO
from penstock.engine.runner import ModelRunner
from penstock.engine.sampler import Sampler
from penstock.llm import AsyncLLM
from penstock.observe.requestlog import RequestLog
from tests.debug import runs
from tests.debug.runs import ask, record, text

Fault = Callable[[Path], None]
FAULTS: dict[str, Fault] = {}
"""Name that the doctor must give -> leaves a log of a run that has the fault."""


def fault(name: str) -> Callable[[Fault], Fault]:
    def note(function: Fault) -> Fault:
        FAULTS[name] = function
        return function

    return note


@contextlib.contextmanager
def broken(owner: Any, name: str, wrap: Callable[[Any], Any]) -> Iterator[None]:
    """The attribute is replaced by `wrap` of itself."""
    whole = getattr(owner, name)
    setattr(owner, name, wrap(whole))
    try:
        yield
    finally:
        setattr(owner, name, whole)


def healthy(seed: int = 0, count: int = 12, **options: Any) -> runs.Script:
    """Calm traffic, at most four at a time: prompts and chats, sampled and greedy, sessions."""

    async def script(llm: AsyncLLM) -> None:
        gate = asyncio.Semaphore(4)

        async def one(i: int) -> None:
            async with gate:
                prompt: Any = text(100 * seed + i, 12 + i)
                if i % 3 == 1:
                    prompt = [{"role": "user", "content": prompt}]
                given = {"temperature": 0.0, "logprobs": 1} if i % 2 else {"temperature": 1.0}
                await ask(llm, prompt, **{"max_tokens": 16, **given, **options})

        await asyncio.gather(*(one(i) for i in range(count)))
        await runs.turns(2, 3)(llm)

    return script


def crowd(count: int, words: int = 10, **options: Any) -> runs.Script:
    """All at once."""

    async def script(llm: AsyncLLM) -> None:
        given = {"max_tokens": 24, "ignore_eos": True, **options}
        await asyncio.gather(*(ask(llm, text(i, words), **given) for i in range(count)))

    return script


# Text


def with_bos(folder: Path) -> str:
    """The demo's tokenizer, which then begins each text with BOS."""
    made = folder.parent / f"{folder.name}-tokenizer"
    shutil.copytree(DEMO, made, ignore=shutil.ignore_patterns("*.safetensors"))
    data = json.loads((made / "tokenizer.json").read_text())
    bos = data["added_tokens"][0]["content"]
    number = data["added_tokens"][0]["id"]
    piece = {"id": bos, "ids": [number], "tokens": [bos]}
    one, two = ({"Sequence": {"id": name, "type_id": n}} for n, name in enumerate("AB"))
    data["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, one],
        "pair": [one, two],
        "special_tokens": {bos: piece},
    }
    (made / "tokenizer.json").write_text(json.dumps(data))
    config = json.loads((made / "tokenizer_config.json").read_text())
    (made / "tokenizer_config.json").write_text(json.dumps({**config, "bos_token": bos}))
    return str(made)


@fault("double-bos")
def double_bos(folder: Path) -> None:
    def alter(llm: AsyncLLM) -> None:
        encode = llm.tokenizer.encode

        def twice(words: str, add_special_tokens: bool = True) -> list[int]:
            bos = llm.tokenizer.bos_id
            assert bos is not None
            ids = encode(words, add_special_tokens)
            return [bos, *ids] if add_special_tokens else ids

        llm.tokenizer.encode = twice  # type: ignore[method-assign]

    record(folder, crowd(4), alter, tokenizer=with_bos(folder))


@fault("missing-bos")
def missing_bos(folder: Path) -> None:
    async def script(llm: AsyncLLM) -> None:
        for i in range(6):
            await ask(llm, text(i, 9), max_tokens=4, add_special_tokens=i < 2)

    record(folder, script, tokenizer=with_bos(folder))


@fault("no-generation-prompt")
def no_generation_prompt(folder: Path) -> None:
    async def script(llm: AsyncLLM) -> None:
        for i in range(5):
            chat = [{"role": "user", "content": text(i, 9)}]
            given = {"template": {"add_generation_prompt": False}} if i else {}
            await ask(llm, chat, max_tokens=4, **given)

    record(folder, script)


@fault("retokenized-history")
def retokenized_history(folder: Path) -> None:
    """The history is sent as text, which encodes to other ids than those that were sampled."""
    record(folder, runs.turns(4, 4, edit=lambda said, turn: said))


@fault("broken-characters")
def broken_characters(folder: Path) -> None:
    class OneByOne:
        """Decodes each token alone."""

        def __init__(self, llm: AsyncLLM) -> None:
            self._tokenizer = llm.tokenizer

        def feed(self, token: str) -> str:
            number = self._tokenizer.token_to_id(token)
            assert number is not None
            return self._tokenizer.token_bytes(number).decode(errors="replace")

        def preview(self) -> str:
            return ""

        def end(self) -> str:
            return ""

    def alter(llm: AsyncLLM) -> None:
        llm.tokenizer.new_decoder = lambda: OneByOne(llm)  # type: ignore[method-assign,assignment,return-value]

    async def script(llm: AsyncLLM) -> None:
        for i in range(4):
            parts = [b for b in range(600) if llm.tokenizer.token_bytes(b) in (b"\xc3", b"\xa9")]
            assert len(parts) == 2
            bias = dict.fromkeys(parts, 100.0)
            await ask(llm, text(i, 5), max_tokens=20, logit_bias=bias, seed=i)

    record(folder, script, alter)


@fault("look-alikes")
def look_alikes(folder: Path) -> None:
    async def script(llm: AsyncLLM) -> None:
        for word in ("caf\u00e9", "cafe\u0301"):
            await ask(llm, f"The {word} by the river", max_tokens=4)

    record(folder, script)


@fault("escaped-text")
def escaped_text(folder: Path) -> None:
    async def script(llm: AsyncLLM) -> None:
        for i in range(5):
            words = "\n".join(text(i + j, 4) for j in range(5))
            await ask(llm, json.dumps(words)[1:-1], max_tokens=4)

    record(folder, script)


@fault("greedy-not-first")
def greedy_not_first(folder: Path) -> None:
    def wrap(drawn: Any) -> Any:
        def second(self: Sampler, logits: torch.Tensor, batch: Any, at: Any) -> torch.Tensor:
            ids: torch.Tensor = drawn(self, logits, batch, at)
            best, other = logits.topk(2).indices.unbind(1)
            return torch.where(ids == best, other, ids)

        return second

    with broken(Sampler, "_draw", wrap):
        record(folder, healthy())


@fault("same-seeds")
def same_seeds(folder: Path) -> None:
    def alter(llm: AsyncLLM) -> None:
        llm._new_seed = lambda: 7

    record(folder, healthy(count=6), alter)


@fault("sampling-changed")
def sampling_changed(folder: Path) -> None:
    for temperature in (0.9, 0.0):
        record(folder, crowd(8, temperature=temperature, max_tokens=4))


@fault("lost-cache")
def lost_cache(folder: Path) -> None:
    """A time stamp stands in front of the history."""
    record(folder, runs.turns(3, 4, edit=lambda said, turn: f"It is {turn} o'clock. {said}"))


@fault("runaway-loop")
def runaway_loop(folder: Path) -> None:
    async def script(llm: AsyncLLM) -> None:
        for _ in range(12):
            await ask(llm, "Call the tool again", max_tokens=3, session="agent")

    record(folder, script)


# Queues


@fault("queue-intake")
def queue_intake(folder: Path) -> None:
    def alter(llm: AsyncLLM) -> None:
        encode = llm.tokenizer.encode

        def slow(words: str, add_special_tokens: bool = True) -> list[int]:
            time.sleep(0.15)
            return encode(words, add_special_tokens)

        llm.tokenizer.encode = slow  # type: ignore[method-assign]

    record(folder, crowd(16, max_tokens=2), alter, max_num_seqs=32)


@fault("queue-slots")
def queue_slots(folder: Path) -> None:
    with broken(ModelRunner, "run", later(0.005)):
        record(folder, crowd(16), max_num_seqs=1)


@fault("queue-blocks")
def queue_blocks(folder: Path) -> None:
    with broken(ModelRunner, "run", later(0.01)):
        record(
            folder,
            crowd(12, words=120),
            max_num_seqs=16,
            max_model_len=256,
            kv_cache_memory_bytes=18 * 49152,
        )


@fault("queue-tokens")
def queue_tokens(folder: Path) -> None:
    with broken(ModelRunner, "run", later(0.01)):
        record(
            folder, crowd(16, words=120, max_tokens=2), max_num_seqs=16, max_num_batched_tokens=32
        )


@fault("queue-reply")
def queue_reply(folder: Path) -> None:
    """Clients that read slowly."""
    record(folder, crowd(10, max_tokens=2, reads_s=1.0))


@fault("turned-away")
def turned_away(folder: Path) -> None:
    async def script(llm: AsyncLLM) -> None:
        import httpx

        from penstock.config import Config, EngineConfig, ServerConfig
        from penstock.server.app import create_app
        from penstock.server.service import Service

        config = Config(engine=EngineConfig(max_num_seqs=1), server=ServerConfig(max_waiting=1))
        service = Service(config)
        service.open(llm)
        transport = httpx.ASGITransport(create_app(service))
        body = {"prompt": "Once", "max_tokens": 4}
        async with httpx.AsyncClient(transport=transport, base_url="http://drill") as client:
            posts = [client.post("/v1/completions", json=body) for _ in range(12)]
            statuses = [reply.status_code for reply in await asyncio.gather(*posts)]
        assert 429 in statuses
        assert 200 in statuses

    record(folder, script)


# Work


def later(seconds: float, every: int = 1) -> Callable[[Any], Any]:
    """The function takes so much longer, each time or every so many times."""

    def wrap(whole: Any) -> Any:
        turns = itertools.count(1)

        def slow(*args: Any, **named: Any) -> Any:
            if next(turns) % every == 0:
                time.sleep(seconds)
            return whole(*args, **named)

        return slow

    return wrap


@fault("host-overhead")
def host_overhead(folder: Path) -> None:
    with broken(Scheduler, "schedule", later(0.03)):
        record(folder, healthy(count=16))


@fault("preemption-thrash")
def preemption_thrash(folder: Path) -> None:
    def wrap(schedule: Any) -> Any:
        turns = itertools.count()

        def thrash(self: Scheduler) -> Any:
            if next(turns) % 4 == 3:
                for name in self.live_ids():
                    self.preempt(name)
            return schedule(self)

        return thrash

    with broken(Scheduler, "schedule", wrap):
        record(folder, crowd(8, max_tokens=12), enable_prefix_caching=False)


@fault("leaked-blocks")
def leaked_blocks(folder: Path) -> None:
    def wrap(release: Any) -> Any:
        turns = itertools.count()

        def leak(self: BlockPool, blocks: Any) -> None:
            release(self, list(blocks)[: -1 if next(turns) == 2 else None])

        return leak

    async def script(llm: AsyncLLM) -> None:
        await crowd(4)(llm)
        for _ in range(200):  # it finds that when it is idle
            await asyncio.sleep(0.05)
            if llm.client.stats().leaked_blocks:
                break
        await crowd(4)(llm)

    with broken(BlockPool, "release", wrap):
        record(folder, script)


@fault("stuck-engine")
def stuck_engine(folder: Path) -> None:
    with broken(ModelRunner, "run", later(6.5, every=15)):
        record(folder, crowd(2))


@fault("failing-requests")
def failing_requests(folder: Path) -> None:
    def wrap(run: Any) -> Any:
        turns = itertools.count()

        def fail(self: ModelRunner, plan: Any) -> Any:
            if next(turns) % 15 == 14:
                raise RuntimeError("illegal memory access")
            return run(self, plan)

        return fail

    async def script(llm: AsyncLLM) -> None:
        for i in range(8):
            with contextlib.suppress(Exception):
                await ask(llm, text(i, 5), max_tokens=8)

    with broken(ModelRunner, "_run", wrap):
        record(folder, script)


@fault("gaps-in-the-log")
def gaps_in_the_log(folder: Path) -> None:
    def wrap(turn: Any) -> Any:
        def slow(self: RequestLog, closing: bool) -> None:
            time.sleep(0.3)
            turn(self, closing)

        return slow

    with broken(RequestLog, "_turn", wrap):
        record(folder, crowd(4), log_queue=4)
