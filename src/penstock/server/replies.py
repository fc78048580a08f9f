"""Outputs as OpenAI's JSON: whole replies and the chunks of streams, of chats and of completions.

The two endpoints differ in names and in the form of logprobs; everything else is shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from penstock.text.outputs import CompletionOutput, Logprob, PositionLogprobs, TextDelta, Usage

Json = dict[str, Any]

FLOOR = -9999.0
"""Stands for minus infinity, which JSON cannot say (OpenAI does the same)."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt of a request, as replies show it."""

    text: str
    """for echo"""
    token_ids: list[int]
    logprobs: list[PositionLogprobs | None] | None
    """one a token, the first None; None: not computed"""
    show_logprobs: bool
    """they were asked for by name, not only as part of an echo"""
    first_token: str
    """text of the first token, which has no logprobs that would carry it"""


class Format(Protocol):
    """How one endpoint writes a choice. One object serves one request: it may count along."""

    name: str
    """`object` of whole replies"""
    chunk_name: str
    id_prefix: str

    def top(self, prompt: Prompt) -> Json:
        """What stands beside the choices, in whole replies and first chunks."""
        ...

    def opening(self, index: int, prompt: Prompt) -> Json | None:
        """The first chunk of a choice, before any of its tokens; None: there is none."""
        ...

    def chunk(self, index: int, delta: TextDelta) -> Json: ...

    def choice(self, index: int, output: CompletionOutput, prompt: Prompt) -> Json: ...


class Chat:
    """logprobs: how many alternatives to show; None shows no logprobs at all."""

    name = "chat.completion"
    chunk_name = "chat.completion.chunk"
    id_prefix = "chatcmpl-"

    def __init__(self, logprobs: int | None, return_token_ids: bool) -> None:
        self._top = logprobs
        self._ids = return_token_ids

    def top(self, prompt: Prompt) -> Json:
        return _about_prompt(prompt, self._ids)

    def opening(self, index: int, prompt: Prompt) -> Json | None:
        delta = {"role": "assistant", "content": ""}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}

    def chunk(self, index: int, delta: TextDelta) -> Json:
        content = {"content": delta.text} if delta.text or delta.finish_reason is None else {}
        return {"index": index, "delta": content, **self._ending(delta)}

    def choice(self, index: int, output: CompletionOutput, prompt: Prompt) -> Json:
        message = {"role": "assistant", "content": output.text, "refusal": None}
        return {"index": index, "message": message, **self._ending(output)}

    def _ending(self, output: TextDelta | CompletionOutput) -> Json:
        logprobs = None
        if self._top is not None and output.logprobs is not None:
            content = [_logprob(position, self._top) for position in output.logprobs]
            logprobs = {"content": content, "refusal": None}
        return _ending(output, logprobs, self._ids)


class Completions:
    """logprobs as for Chat; echo puts the prompt before each answer."""

    name = chunk_name = "text_completion"
    id_prefix = "cmpl-"

    def __init__(self, logprobs: int | None, return_token_ids: bool, echo: bool) -> None:
        self._top = logprobs
        self._ids = return_token_ids
        self._echo = echo
        self._offsets: dict[int, int] = {}
        """by choice: characters of the tokens shown so far"""

    def top(self, prompt: Prompt) -> Json:
        return {}

    def opening(self, index: int, prompt: Prompt) -> Json | None:
        if not self._echo and not self._ids:
            return None
        text, shown = "", None
        if self._echo:
            text, shown = prompt.text, self._legacy(index, _echoed(prompt))
        choice: Json = {"index": index, "text": text, "logprobs": shown, "finish_reason": None}
        return {**choice, **_about_prompt(prompt, self._ids)}

    def chunk(self, index: int, delta: TextDelta) -> Json:
        shown = self._legacy(index, delta.logprobs or ())
        return {"index": index, "text": delta.text, **_ending(delta, shown, self._ids)}

    def choice(self, index: int, output: CompletionOutput, prompt: Prompt) -> Json:
        echoed = _echoed(prompt) if self._echo else []
        shown = self._legacy(index, [*echoed, *(output.logprobs or ())])
        text = prompt.text + output.text if self._echo else output.text
        choice = {"index": index, "text": text, **_ending(output, shown, self._ids)}
        return {**choice, **_about_prompt(prompt, self._ids)}

    def _legacy(self, index: int, positions: Sequence[PositionLogprobs | str]) -> Json | None:
        """Parallel lists; a string is a token without logprobs."""
        if self._top is None:
            return None
        tokens: list[str] = []
        chosen: list[float | None] = []
        tops: list[dict[str, float] | None] = []
        offsets: list[int] = []
        offset = self._offsets.get(index, 0)
        for position in positions:
            if isinstance(position, str):
                token, logprob, top = position, None, None
            else:
                first = next(iter(position.values()))
                token, logprob = first.decoded_token, max(first.logprob, FLOOR)
                top = {p.decoded_token: max(p.logprob, FLOOR) for p in position.values()}
            tokens.append(token)
            chosen.append(logprob)
            tops.append(top)
            offsets.append(offset)
            offset += len(token)
        self._offsets[index] = offset
        return {
            "tokens": tokens,
            "token_logprobs": chosen,
            "top_logprobs": tops,
            "text_offset": offsets,
        }


class Tokens:
    """Ids in, ids out; logprobs as for Chat."""

    name = chunk_name = "generate"
    id_prefix = "gen-"

    def __init__(self, logprobs: int | None) -> None:
        self._top = logprobs

    def top(self, prompt: Prompt) -> Json:
        return {"prompt_logprobs": _id_logprobs(prompt.logprobs)} if prompt.show_logprobs else {}

    def opening(self, index: int, prompt: Prompt) -> Json | None:
        return None

    def chunk(self, index: int, delta: TextDelta) -> Json:
        return self._shown(index, delta)

    def choice(self, index: int, output: CompletionOutput, prompt: Prompt) -> Json:
        return self._shown(index, output)

    def _shown(self, index: int, output: TextDelta | CompletionOutput) -> Json:
        logprobs = None if self._top is None else _id_logprobs(output.logprobs or ())
        return {"index": index, **_ending(output, logprobs, with_ids=True)}


def _id_logprobs(positions: Sequence[PositionLogprobs | None] | None) -> list[Json | None]:
    """One object a position: the token first, then the alternatives; None where there is none."""

    def entry(token_id: int, found: Logprob) -> Json:
        return {"id": token_id, "logprob": max(found.logprob, FLOOR), "rank": found.rank}

    shown: list[Json | None] = []
    for position in positions or ():
        entries = [entry(*item) for item in position.items()] if position else []
        shown.append({**entries[0], "top": entries[1:]} if entries else None)
    return shown


def _ending(
    output: TextDelta | CompletionOutput, logprobs: Json | list[Json | None] | None, with_ids: bool
) -> Json:
    ending = {
        "logprobs": logprobs,
        "finish_reason": output.finish_reason,
        "stop_reason": output.stop_reason,
    }
    return {**ending, "token_ids": output.token_ids} if with_ids else ending


def _about_prompt(prompt: Prompt, with_ids: bool) -> Json:
    """What vLLM's replies say about the prompt: beside the choices of a chat, in each choice of
    completions."""
    about: Json = {"prompt_token_ids": prompt.token_ids} if with_ids else {}
    if prompt.show_logprobs and prompt.logprobs is not None:
        about["prompt_logprobs"] = [_vllm_logprobs(p) for p in prompt.logprobs]
    return about


def _echoed(prompt: Prompt) -> list[PositionLogprobs | str]:
    return [p if p else prompt.first_token for p in prompt.logprobs or ()]


def _logprob(position: PositionLogprobs, top: int) -> Json:
    """OpenAI's form: the chosen token, and the `top` best by rank."""
    entries = [
        {"token": p.decoded_token, "logprob": max(p.logprob, FLOOR), "bytes": list(p.bytes)}
        for p in position.values()
    ]
    ranks = [p.rank for p in position.values()]
    best = [i for i in sorted(range(len(ranks)), key=ranks.__getitem__) if ranks[i] <= top]
    return {**entries[0], "top_logprobs": [entries[i] for i in best]}


def _vllm_logprobs(position: PositionLogprobs | None) -> Json | None:
    """vLLM's form, which OpenAI lacks: by token id."""
    if position is None:
        return None
    return {
        str(token_id): {
            "logprob": max(p.logprob, FLOOR),
            "rank": p.rank,
            "decoded_token": p.decoded_token,
        }
        for token_id, p in position.items()
    }


def usage_json(usages: Sequence[Usage]) -> Json:
    """Token counts over all prompts of a request."""
    prompt = sum(u.prompt_tokens for u in usages)
    completion = sum(u.completion_tokens for u in usages)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(u.cached_tokens for u in usages)},
    }


class Chunks:
    """Frames the chunks of one stream. What is the same in all of them is encoded once."""

    def __init__(self, head: Json, include_usage: bool) -> None:
        self._head = b"data: " + msgspec.json.encode(head)[:-1] + b',"choices":'
        # OpenAI: with include_usage every chunk but the last has a null usage
        self._tail = b',"usage":null}\n\n' if include_usage else b"}\n\n"

    def frame(self, choice: Json, usage: Json | None = None, top: Json | None = None) -> bytes:
        """top: what stands beside the choices."""
        more = b"," + msgspec.json.encode(top)[1:-1] if top else b""
        return self._head + msgspec.json.encode([choice]) + more + self._end(usage)

    def last(self, usage: Json) -> bytes:
        """The chunk without choices that carries the usage."""
        return self._head + b"[]" + self._end(usage)

    def _end(self, usage: Json | None) -> bytes:
        if usage is None:
            return self._tail
        return b',"usage":' + msgspec.json.encode(usage) + b"}\n\n"
