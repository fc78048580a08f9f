"""A checked body as a `Call`: what to submit to the model, and how to write what it answers."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

from penstock.core.records import Origin
from penstock.core.request import BACKGROUND
from penstock.errors import InvalidFieldError
from penstock.llm import AsyncLLM, Generation, SamplingParams
from penstock.server import kinds
from penstock.server.fields import Parsed
from penstock.server.replies import Chat, Completions, Format
from penstock.web.caller import NOBODY, Caller

DEFAULT_MAX_TOKENS = 16
"""of completions, by OpenAI's definition, as far as the context allows"""

GRACE_S = 1.0
"""After a deadline, an engine that says nothing is taken to hang."""

_SAMPLED = {f.name for f in fields(SamplingParams)} - {"logprobs", "max_tokens"}


@dataclass(frozen=True, slots=True)
class Call:
    """One request for text."""

    llm: AsyncLLM
    request_id: str
    """as the client sees it"""
    adapter: str | None
    """that it asked for as its model"""
    params: SamplingParams
    format: Format
    prompts: list[Callable[[], Awaitable[Generation]]]
    """each submits one prompt"""
    prompt_logprobs: bool
    """asked for by name, not only as part of an echo"""
    timeout_s: float | None
    deadline_s: float | None
    """absolute, on the model's clock"""
    stream: bool
    include_usage: bool
    continuous_usage: bool
    every_token: bool
    """a stream tells of tokens that have no text yet: their ids, logprobs or count are wanted"""
    echo: bool
    """the prompt's text stands before each answer"""
    echo_only: bool
    """score the prompt, show no output"""
    caller: Caller = NOBODY

    def patience_s(self) -> float | None:
        """How long to wait for the engine, which should itself end the request at its deadline."""
        if self.deadline_s is None:
            return None
        return max(0.0, self.deadline_s - self.llm.clock.now()) + GRACE_S

    @property
    def num_choices(self) -> int:
        return len(self.prompts) * self.params.n


@dataclass(frozen=True, slots=True)
class Asked:
    """What came beside the body."""

    request_id: str | None
    """header X-Request-Id"""
    timeout_s: float | None
    """header X-Request-Timeout, or the server's default"""
    arrival_s: float
    """on the model's clock"""
    caller: Caller = NOBODY
    origin: Origin = field(default_factory=Origin)
    """for the log"""


def new_id() -> str:
    return secrets.token_hex(12)


def chat_call(llm: AsyncLLM, body: Parsed, asked: Asked) -> Call:
    """Raises InvalidFieldError."""
    top = body["top_logprobs"]
    if top is not None and not body["logprobs"]:
        raise InvalidFieldError(
            "top_logprobs needs logprobs.", cure='Send "logprobs": true.', param="top_logprobs"
        )
    logprobs = (top or 0) if body["logprobs"] else None
    params = params_of(llm, body, logprobs=logprobs, max_tokens=_chat_limit(body))
    generate = partial(llm.chat, body["messages"], params, template=template_options(body))
    return make_call(llm, body, asked, params, Chat(logprobs, body["return_token_ids"]), [generate])


def completions_call(llm: AsyncLLM, body: Parsed, asked: Asked) -> Call:
    """Raises InvalidFieldError."""
    logprobs, echo, limit = body["logprobs"], body["echo"], body["max_tokens"]
    # A prompt is scored on the way to a token that nobody sees.
    given = {"logprobs": logprobs, "max_tokens": 1 if echo and limit == 0 else limit}
    if echo and body["prompt_logprobs"] is None:
        given["prompt_logprobs"] = logprobs
    params = params_of(llm, body, **given)
    special = body["add_special_tokens"]
    options = {"default_max_tokens": DEFAULT_MAX_TOKENS, "add_special_tokens": special}
    prompts = [partial(llm.generate, prompt, params, **options) for prompt in body["prompt"]]
    reply = Completions(logprobs, body["return_token_ids"], echo)
    return make_call(llm, body, asked, params, reply, prompts, echo)


def template_options(body: Parsed) -> dict[str, Any]:
    """Keyword arguments of `ChatRenderer.render`."""
    continued, prompted = body["continue_final_message"], body["add_generation_prompt"]
    return {
        "add_generation_prompt": not continued if prompted is None else prompted,
        "continue_final_message": continued,
        "template_kwargs": body["chat_template_kwargs"],
        "chat_template": body.values.get("chat_template"),
    }


def header_seconds(text: str | None) -> float | None:
    """The deadline in a header. Raises InvalidFieldError."""
    if text is None:
        return None
    try:
        return float(kinds.SECONDS.read(float(text), "X-Request-Timeout"))
    except ValueError:
        raise kinds.wrong("X-Request-Timeout", kinds.SECONDS.words, text) from None


def header_class(text: str | None) -> str:
    """The class in a header; empty: none. Raises InvalidFieldError."""
    return "" if text is None else str(kinds.SLO_CLASS.read(text.strip(), "X-Slo-Class"))


def params_of(llm: AsyncLLM, body: Parsed, **over: Any) -> SamplingParams:
    given = {name: body.values[name] for name in _SAMPLED if name in body.values}
    given |= over
    return llm.params(**{name: value for name, value in given.items() if value is not None})


def _session(body: Parsed) -> str:
    """Whose request it is: such requests often begin alike."""
    named = (body.logged.get(name) for name in ("prompt_cache_key", "user"))
    return next((name for name in named if isinstance(name, str)), "")


def _chat_limit(body: Parsed) -> int | None:
    old, new = body["max_tokens"], body["max_completion_tokens"]
    if old is not None and new is not None and old != new:
        raise InvalidFieldError(
            f"max_tokens is {old} and max_completion_tokens is {new}; they mean the same.",
            cure="Send max_completion_tokens alone.",
            param="max_tokens",
        )
    limit: int | None = old if new is None else new
    return limit


def _stream_options(body: Parsed) -> Any:
    """The field of that name. Raises InvalidFieldError where fields contradict `stream`."""
    given = body.values.get
    if given("stream") and given("prompt_logprobs") is not None:
        raise InvalidFieldError(
            "prompt_logprobs are not sent in streams.",
            cure="Leave stream away, or use echo with logprobs.",
            param="prompt_logprobs",
        )
    if given("stream_options") is not None and not given("stream"):
        raise InvalidFieldError(
            "stream_options needs stream.", cure='Send "stream": true.', param="stream_options"
        )
    return given("stream_options")


def make_call(
    llm: AsyncLLM,
    body: Parsed,
    asked: Asked,
    params: SamplingParams,
    reply: Format,
    prompts: Sequence[Callable[..., Awaitable[Generation]]],
    echo: bool = False,
) -> Call:
    """Fields that the body's endpoint does not have are as if absent. Raises InvalidFieldError."""
    given = body.values.get
    usage = _stream_options(body)
    chosen = body["request_id"] or asked.request_id
    request_id = chosen or new_id()
    # Ids that clients choose may repeat, as in a retry; the engine's must not.
    engine_id = f"{request_id}-{secrets.token_hex(4)}" if chosen else request_id
    limits = [t for t in (body["timeout"], asked.timeout_s) if t is not None]
    timeout_s = min(limits, default=None)
    deadline_s = None if timeout_s is None else asked.arrival_s + timeout_s
    adapter = given("model") if given("model") in llm.adapters else None
    options = {
        "adapter": adapter,
        "arrival_s": asked.arrival_s,
        "deadline_s": deadline_s,
        "priority": body["priority"] + (BACKGROUND if asked.caller.background else 0),
        "slo_class": given("slo_class") or asked.origin.slo_class,
        "cache_salt": asked.caller.salt(body["cache_salt"] or ""),
        "tenant": asked.caller.name,
        "weight": asked.caller.weight,
        "session": _session(body),
        "origin": asked.origin,
    }
    asked.origin.call, asked.origin.stream = request_id, bool(given("stream"))
    asked.origin.model = body["model"] or ""
    many = len(prompts) > 1
    continuous = bool(usage and usage["continuous_usage_stats"])
    return Call(
        llm=llm,
        request_id=request_id,
        adapter=adapter,
        params=params,
        format=reply,
        prompts=[
            partial(prompt, request_id=f"{engine_id}.{i}" if many else engine_id, **options)
            for i, prompt in enumerate(prompts)
        ],
        prompt_logprobs=given("prompt_logprobs") is not None,
        timeout_s=timeout_s,
        deadline_s=deadline_s,
        stream=bool(given("stream")),
        include_usage=bool(usage and usage["include_usage"]),
        continuous_usage=continuous,
        every_token=continuous or bool(given("return_token_ids")) or params.logprobs is not None,
        echo=echo,
        echo_only=echo and given("max_tokens") == 0,
        caller=asked.caller,
    )
