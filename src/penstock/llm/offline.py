"""The synchronous facade for scripts: an engine in this process behind plain calls."""

from __future__ import annotations

import asyncio
import difflib
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from penstock.config import Config
from penstock.config.tree import SECTIONS, all_options
from penstock.errors import ConfigError, InvalidFieldError
from penstock.llm.async_llm import AsyncLLM, Prompt
from penstock.llm.generation import Generation
from penstock.text.chat import Message
from penstock.text.outputs import RequestOutput
from penstock.text.params import SamplingParams

T = TypeVar("T")
Job = Callable[[], Awaitable[Generation]]
Chat = list[Message]
MIN_IN_FLIGHT = 64


async def start_in_process(config: Config) -> AsyncLLM:
    """An `AsyncLLM` over an engine in this process, or over processes when several are wanted.

    Nobody watches a stream here, so prompts are not held back for those that decode."""
    if config.engine.max_num_mixed_prefill_tokens is None:
        config = replace(config, engine=replace(config.engine, max_num_mixed_prefill_tokens=0))
    if config.engine.data_parallel_size > 1:
        from penstock.engine.group import EngineGroup

        return await AsyncLLM.start(config, EngineGroup(config))
    from penstock.engine.inprocess import InProcessClient  # only where a model starts

    return await AsyncLLM.start(config, InProcessClient(config))


def config_of(**options: Any) -> Config:
    """A checked Config from options by their names. Raises ConfigError for an unknown one."""
    sections: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    known = {option.name: option.section for option in all_options()}
    for name, value in options.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            cure = f"Did you mean {near[0]}?" if near else f"Known are {', '.join(known)}."
            raise ConfigError(f"There is no option {name}.", cure=cure, param=name)
        sections[known[name]][name] = value
    return Config(**{name: make(**sections[name]) for name, make in SECTIONS.items()}).check()


class LLM:
    """Loads a model into this process and answers lists of prompts.

        with LLM("demo") as llm:
            outputs = llm.generate(["Once upon a time"], SamplingParams(max_tokens=50))

    model: `demo`, a local folder or a Hugging Face hub id. options: any option of the
    configuration by its name (`max_model_len=2048`, `dtype="float32"` …).
    start: makes the `AsyncLLM` that answers.
    Raises ConfigError, CheckpointError and what else keeps the engine from starting.
    """

    def __init__(
        self,
        model: str = "demo",
        *,
        start: Callable[[Config], Coroutine[Any, Any, AsyncLLM]] = start_in_process,
        **options: Any,
    ) -> None:
        config = config_of(model=model, **options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="llm", daemon=True)
        self._thread.start()
        try:
            self.llm = self._run(start(config))
        except BaseException:
            self._stop()
            raise

    def default_params(self) -> SamplingParams:
        """What the model's generation_config.json recommends."""
        return self.llm.params()

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
        adapter: str | None = None,
    ) -> list[RequestOutput]:
        """Answer prompts (texts or ids), all at once; outputs in the order of the prompts.

        params: one for all, or one a prompt; `default_params()` when None.
        use_tqdm: show a progress bar (the name is vLLM's). The first error ends the call, and
        aborts the other requests. adapter: the name of one of the option lora_modules.
        """
        single = isinstance(prompts, str) or (len(prompts) > 0 and isinstance(prompts[0], int))
        todo: list[Any] = [prompts] if single else list(prompts)
        return self._answer(
            [
                partial(self.llm.generate, prompt, each, adapter=adapter)
                for prompt, each in zip(todo, _spread(params, len(todo)), strict=True)
            ],
            use_tqdm,
        )

    def chat(
        self,
        conversations: Chat | Sequence[Chat],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
        **template: Any,
    ) -> list[RequestOutput]:
        """Answer one conversation (a list of messages) or several; like `generate` otherwise.

        template: keyword arguments of `ChatRenderer.render`.
        """
        single = len(conversations) > 0 and isinstance(conversations[0], Mapping)
        todo: list[Any] = [conversations] if single else list(conversations)
        return self._answer(
            [
                partial(self.llm.chat, chat, each, template=template)
                for chat, each in zip(todo, _spread(params, len(todo)), strict=True)
            ],
            use_tqdm,
        )

    def close(self) -> None:
        """Stop the engine and free its memory. Calling it again does nothing."""
        if self._thread.is_alive():
            self._run(self.llm.close())
            self._stop()

    def __enter__(self) -> LLM:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _answer(self, jobs: list[Job], show: bool) -> list[RequestOutput]:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeRemainingColumn(), disable=not show) as progress:
            bar = progress.add_task("requests", total=len(jobs))
            in_flight = max(MIN_IN_FLIGHT, 2 * self.llm.info.max_num_seqs)
            return self._run(run_all(jobs, in_flight, partial(progress.advance, bar)))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run on the loop's thread; an interrupt here cancels the work there."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def run_all(
    jobs: Sequence[Job], in_flight: int, advance: Callable[[], None]
) -> list[RequestOutput]:
    """The results of all jobs, in their order, with at most `in_flight` submitted at once (the
    engine's queue and the tokenizer's memory stay bounded)."""
    results: dict[int, RequestOutput] = {}
    queue = iter(enumerate(jobs))

    async def work() -> None:
        for index, job in queue:
            results[index] = await (await job()).result()
            advance()

    workers = [asyncio.create_task(work()) for _ in range(min(in_flight, len(jobs)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return [results[index] for index in range(len(jobs))]


def _spread(
    params: SamplingParams | Sequence[SamplingParams] | None, count: int
) -> Sequence[SamplingParams | None]:
    if params is None or isinstance(params, SamplingParams):
        return [params] * count
    if len(params) != count:
        raise InvalidFieldError(
            f"{len(params)} params for {count} prompts.",
            cure="Give one for all, or one for each.",
            param="params",
        )
    return params
