"""The asynchronous facade: everything that turns a prompt or messages into a `Generation`."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import penstock
from penstock.config import Config
from penstock.core.clock import Clock
from penstock.core.records import Origin
from penstock.core.request import Adapter, Sampling
from penstock.engine import peft
from penstock.engine.client import EngineClient, ModelInfo
from penstock.engine.clock import MonotonicClock
from penstock.engine.hub import model_folder
from penstock.errors import (
    InvalidFieldError,
    ModelNotFoundError,
    PenstockError,
    TemplateError,
    UnsupportedError,
)
from penstock.llm.generation import Generation, Stamps, TextTimes
from penstock.observe import identity
from penstock.observe.requestlog import RequestLog
from penstock.text.chat import ChatRenderer, Message
from penstock.text.params import SamplingParams, generation_defaults
from penstock.text.tokenizer import Tokenizer

Prompt = str | list[int]
"""Text, or the ids of a text."""

T = TypeVar("T")
TOKENIZER_THREADS = 2


class AsyncLLM:
    """One model, ready to answer. All methods are called from one event loop.

    info: what the engine settled at its start. defaults: the fields of SamplingParams that the
    model's generation_config.json recommends; `params` applies them. new_seed: draws the seeds of
    requests that bring none.
    """

    def __init__(
        self,
        client: EngineClient,
        info: ModelInfo,
        tokenizer: Tokenizer,
        renderer: ChatRenderer | None = None,
        *,
        defaults: Mapping[str, Any] | None = None,
        new_seed: Callable[[], int] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.client = client
        self.info = info
        self.tokenizer = tokenizer
        self.renderer = renderer or ChatRenderer(tokenizer.chat_templates, tokenizer.special_tokens)
        self.defaults = dict(defaults or {})
        ends = dict.fromkeys((*info.eos_ids, *tokenizer.eos_ids))
        self.eos_ids = tuple(token_id for token_id in ends if token_id < info.vocab_size)
        """ids that end an answer, by the checkpoint and by its tokenizer"""
        self.clock = clock or MonotonicClock()
        self.adapters: dict[str, Adapter] = {}
        """by the name that requests choose them by"""
        self.times: TextTimes | None = None
        """told of every request's time in the tokenizer and detokenizer"""
        self.log: RequestLog | None = None
        """told of every request; closed with this"""
        self.identity: Callable[[], dict[str, Any]] = dict
        """what a log's header says of model and configuration; reads files"""
        self._new_seed = new_seed or partial(secrets.randbits, 63)
        self._pool = ThreadPoolExecutor(TOKENIZER_THREADS, thread_name_prefix="tokenizer")

    @classmethod
    async def start(cls, config: Config, client: EngineClient) -> AsyncLLM:
        """Load the tokenizer while the client starts the engine.

        Raises what `EngineClient.start`, `Tokenizer.load` and `ChatTemplate` raise; the client is
        closed then.
        """
        starting = asyncio.ensure_future(client.start())
        try:
            text = await asyncio.to_thread(_load_text, config)
            info = await starting
        except BaseException:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await client.close()
            raise
        seed = config.model.seed
        llm = cls(
            client,
            info,
            text.tokenizer,
            text.renderer,
            defaults=text.defaults,
            new_seed=None if seed is None else partial(random.Random(seed).getrandbits, 63),
        )
        llm.identity = partial(_identity, config, text, info)
        try:
            for module in config.model.lora_modules:
                name, _, path = module.partition("=")
                await llm.load_adapter(name, path)
            if config.log.log_dir is not None:
                header = await asyncio.to_thread(llm.identity)
                llm.log = RequestLog(config.log, header, text.tokenizer.decode)
                client.subscribe(llm.log)
        except BaseException:
            await llm.close()
            raise
        return llm

    async def load_adapter(self, name: str, path: str) -> Adapter:
        """Let requests choose the adapter in a folder by a name. Raises InvalidFieldError for a
        name that is taken, and what `peft.check` raises for an adapter that cannot be used."""
        if self.info.adapters is None:
            raise UnsupportedError(
                "This model has no slots for adapters.",
                cure="Start with --lora-modules, --max-loras or --allow-runtime-lora-updating.",
                param="lora_name",
            )
        check = partial(peft.check, name, path, self.info.adapters)
        adapter = await asyncio.to_thread(check)
        if self.adapters.setdefault(name, adapter) is not adapter:
            raise InvalidFieldError(
                f"There is an adapter {name!r} already.",
                cure="Unload it first, or take another name.",
                param="lora_name",
            )
        return adapter

    def params(self, **given: Any) -> SamplingParams:
        """SamplingParams of the fields that a request brought, over the model's defaults."""
        return SamplingParams(**{**self.defaults, **given})

    async def generate(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        request_id: str | None = None,
        priority: int = 0,
        arrival_s: float | None = None,
        deadline_s: float | None = None,
        cache_salt: str = "",
        session: str = "",
        slo_class: str = "",
        tenant: str = "",
        weight: float = 1.0,
        adapter: str | None = None,
        default_max_tokens: int | None = None,
        add_special_tokens: bool = True,
        pooling: str = "",
        text: str | None = None,
        origin: Origin | None = None,
        stamps: Stamps | None = None,
    ) -> Generation:
        """Submit a request; iterate over what is returned, or await its `result`.

        request_id: unique among the running ones; made up when None.
        arrival_s, deadline_s: absolute, in seconds on `self.clock`; arrival is now when None.
        tenant, weight: whose share of the engine it takes, and how large that is.
        session: requests of one session like to meet the same engine's cache; a hint.
        slo_class: interactive, agent or batch (policy `slo`); empty: the engine's default.
        adapter: name of one that is loaded.
        default_max_tokens: limit, as far as the context allows, for params without max_tokens.
        add_special_tokens: put what the checkpoint wants (BOS) around a prompt of text.
        pooling: `last` or `mean`, for the generation's `embedding`.
        text: what a prompt of ids was made of, to be shown and logged beside them.
        origin, stamps: for the log, where it came from and what was done to it already.
        Raises InvalidFieldError for an empty prompt, ids outside the vocabulary and parameters out
        of range, ContextLengthError, and ModelNotFoundError for an unknown adapter, before
        anything is submitted. What the engine refuses is raised by the first delta.
        """
        stamps = stamps or Stamps(self.clock.now())
        arrival_s = stamps.admitted_s if arrival_s is None else arrival_s
        if adapter is not None and adapter not in self.adapters:
            raise ModelNotFoundError(f"No adapter {adapter!r} is loaded.", param="model")
        ids = prompt
        if isinstance(prompt, str):
            encode = partial(self.tokenizer.encode, prompt, add_special_tokens)
            text, ids = prompt, await self._tokenizing(encode, stamps)
        return await self._submit(
            text,
            ids,
            params or self.params(),
            default_max_tokens,
            pooling,
            request_id=request_id or f"gen-{secrets.token_hex(12)}",
            priority=priority,
            arrival_s=arrival_s,
            deadline_s=deadline_s,
            cache_salt=cache_salt,
            session=session,
            slo_class=slo_class,
            tenant=tenant,
            weight=weight,
            adapter=None if adapter is None else self.adapters[adapter],
            origin=origin,
            stamps=stamps,
        )

    async def chat(
        self,
        messages: list[Message],
        params: SamplingParams | None = None,
        *,
        template: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Generation:
        """Render messages and submit them. template: keyword arguments of `ChatRenderer.render`;
        options: those of `generate`. Raises what both raise."""
        stamps = Stamps(self.clock.now())
        options.setdefault("arrival_s", stamps.admitted_s)
        text, ids = await self._render(messages, template or {}, stamps)
        return await self.generate(ids, params, text=text, stamps=stamps, **options)

    async def render(self, messages: list[Message], **template: Any) -> tuple[str, list[int]]:
        """Prompt text and ids of a chat; keyword arguments are those of `ChatRenderer.render`."""
        return await self._render(messages, template)

    async def _render(
        self, messages: list[Message], template: Mapping[str, Any], stamps: Stamps | None = None
    ) -> tuple[str, list[int]]:
        def work() -> tuple[str, list[int]]:
            text = self.renderer.render(messages, **template)
            return text, self.tokenizer.encode(text, add_special_tokens=False)

        return await self._tokenizing(work, stamps)

    async def tokenize(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Ids of a text, with BOS where the model wants one."""
        return await self._tokenizing(partial(self.tokenizer.encode, text, add_special_tokens))

    async def detokenize(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        """Text of ids. Raises InvalidFieldError for what is not an id of this model."""
        self._check_ids(ids, "tokens")
        return await self._in_pool(partial(self.tokenizer.decode, ids, skip_special_tokens))

    def abort(self, request_id: str, n: int = 1) -> None:
        """Stop a request from outside; its reader gets finish reason `abort`."""
        self.client.abort([request_id] if n == 1 else [f"{request_id}-{i}" for i in range(n)])

    async def close(self) -> None:
        """Close the client; running requests end with its error."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        await self.client.close()
        if self.log is not None:
            await asyncio.to_thread(self.log.close)

    async def _submit(
        self,
        prompt: str | None,
        ids: Any,
        params: SamplingParams,
        default_max_tokens: int | None,
        pooling: str,
        **submission: Any,
    ) -> Generation:
        self._check_ids(ids, "prompt")
        if not ids:
            raise InvalidFieldError(
                "The prompt is empty.", cure="Send at least one token.", param="prompt"
            )
        resolve = partial(
            params.resolve,
            self.tokenizer,
            self.eos_ids,
            len(ids),
            self.info.max_model_len,
            self._new_seed(),
            default_max_tokens,
            self.info.vocab_size,
        )
        samplings = await self._in_pool(resolve) if params.bad_words else resolve()
        if pooling:
            samplings = tuple(replace(sampling, pooling=pooling) for sampling in samplings)
        return Generation(
            self.client,
            self.clock,
            self.tokenizer,
            prompt=prompt,
            prompt_token_ids=ids,
            params=params,
            samplings=_prompt_logprobs_once(samplings),
            times=self.times,
            log=self.log,
            **submission,
        )

    def _check_ids(self, ids: Any, param: str) -> None:
        size = self.info.vocab_size
        ok = isinstance(ids, list) and all(type(i) is int and 0 <= i < size for i in ids)
        if not ok:
            raise InvalidFieldError(f"{param} must be a list of ids below {size}.", param=param)

    async def _tokenizing(self, work: Callable[[], T], stamps: Stamps | None = None) -> T:
        def timed() -> tuple[T, float, float]:
            began = self.clock.now()
            return work(), began, self.clock.now()

        asked = self.clock.now()
        result, began, ended = await self._in_pool(timed)
        now = self.clock.now()
        if self.times is not None:
            self.times.tokenized(now - asked)
        if stamps is not None:
            stamps.tokenizing_s, stamps.tokenized_s = began, now
            stamps.tokenize_s = ended - began
        return result

    async def _in_pool(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _prompt_logprobs_once(samplings: tuple[Sampling, ...]) -> list[Sampling]:
    """All choices have the same prompt: the first alone computes its logprobs."""
    return [samplings[0], *(replace(s, prompt_logprobs=None) for s in samplings[1:])]


@dataclass(frozen=True, slots=True)
class _Text:
    """What a checkpoint folder says about text."""

    tokenizer: Tokenizer
    renderer: ChatRenderer
    defaults: dict[str, Any]
    folder: Path
    tokenizer_folder: Path
    templates: dict[str, str]


def _load_text(config: Config) -> _Text:
    model = config.model
    folder = tokenizer_folder = model_folder(config)
    if model.tokenizer is not None:
        other = replace(model, model=model.tokenizer, revision=None)
        tokenizer_folder = model_folder(replace(config, model=other))
    tokenizer = Tokenizer.load(tokenizer_folder)
    templates = tokenizer.chat_templates
    if model.chat_template is not None:
        templates = {"default": _template_source(model.chat_template)}
    return _Text(
        tokenizer,
        ChatRenderer(templates, tokenizer.special_tokens),
        generation_defaults(folder) if model.generation_config == "auto" else {},
        folder,
        tokenizer_folder,
        templates,
    )


def _identity(config: Config, text: _Text, info: ModelInfo) -> dict[str, Any]:
    """What a log's header says of model and configuration."""
    settled = {k: v for k, v in asdict(info).items() if k not in ("stages_s", "cache_key")}
    found = identity.hashes(
        config, text.folder, text.tokenizer_folder, text.templates, info.kernels, info.threads
    )
    return {
        "version": penstock.__version__,
        "hashes": found,
        "config": identity.config_data(config),
        "model": {**settled, "folder": str(text.folder)},
        "golden": _golden(text),
    }


def _golden(text: _Text) -> dict[str, Any]:
    """What tokenizer and template make of fixed texts."""
    tokenizer = text.tokenizer
    ids = tokenizer.encode(identity.GOLDEN_TEXT)
    golden: dict[str, Any] = {
        "ids": ids,
        "bos": tokenizer.bos_id,
        "adds_bos": tokenizer.bos_id is not None and ids[:1] == [tokenizer.bos_id],
        "prompt": None,
    }
    try:
        chat: list[Message] = [{"role": "user", "content": "x"}]
        with_prompt = text.renderer.render(chat)
        without = text.renderer.render(chat, add_generation_prompt=False)
    except PenstockError:
        return golden  # no template, or one that wants other messages
    if with_prompt.startswith(without) and len(with_prompt) > len(without):
        golden["prompt"] = tokenizer.encode(with_prompt[len(without) :], add_special_tokens=False)
    return golden


def _template_source(template: str) -> str:
    """The contents of a file, or the template itself."""
    if "{" in template or "\n" in template:
        return template
    try:
        return Path(template).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise TemplateError(
            f"The chat template {template} cannot be read: {error}.",
            cure="Give the path of a Jinja file, or the template itself.",
        ) from None
