"""What the server under test is and takes: servers differ in the fields that they accept.

One probe a form, from the form that fixes lengths exactly down to the plainest, until one is
taken. The probe is the warm-up as well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import msgspec

from penstock.bench.client import Exchange, encode, exchange
from penstock.bench.http import HttpClient, Response
from penstock.bench.prompts import SAFE_VOCAB_SIZE, Prompts
from penstock.errors import (
    AuthError,
    ConfigError,
    ModelNotFoundError,
    PenstockError,
    UnavailableError,
)

PATHS = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}
"""By endpoint."""
PROBE_GROUP = -1
"""Probes share no prefix with any measured request."""
PROBE_LEN = 2
"""Output tokens of a probe."""


@dataclass(frozen=True, slots=True)
class Form:
    """How requests are written for one server."""

    endpoint: str
    ids: bool
    """the prompt is token ids"""
    exact: bool
    """`ignore_eos` and `return_token_ids` are sent"""
    usage: bool
    """usage is asked for at the end of the stream"""
    words_per_token: float = 1.0

    def body(self, model: str, prompt: list[int] | str, output_len: int) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": model,
            "max_tokens": output_len,
            "temperature": 0,
            "stream": True,
        }
        if self.endpoint == "chat":
            body["messages"] = [{"role": "user", "content": prompt}]
        else:
            body["prompt"] = prompt
        if self.exact:
            body |= {"ignore_eos": True, "return_token_ids": True}
        if self.usage:
            body["stream_options"] = {"include_usage": True}
        return body

    def prompt(self, prompts: Prompts, group: int, index: int) -> list[int] | str:
        if self.ids:
            return prompts.ids(group, index)
        return prompts.text(group, index, self.words_per_token)

    def notes(self) -> list[str]:
        """What this form leaves inexact."""
        notes = []
        if not self.ids:
            notes.append("prompts are text: their lengths are near the wanted one, not equal to it")
        if not self.exact:
            notes.append("ignore_eos is not accepted: outputs may be shorter than asked for")
        if not self.usage:
            notes.append("no usage is reported: tokens are counted as chunks")
        return notes


def forms(endpoint: str) -> list[Form]:
    """From the most exact to the plainest."""
    text = [Form(endpoint, ids=False, exact=exact, usage=True) for exact in (True, False)]
    bare = [Form(endpoint, ids=False, exact=False, usage=False)]
    ids = [Form(endpoint, ids=True, exact=exact, usage=True) for exact in (True, False)]
    return ids + text[1:] + bare if endpoint == "completions" else text + bare


@dataclass(frozen=True, slots=True)
class Target:
    """The server, settled."""

    model: str
    version: str
    """what its /version says; empty where there is none"""
    prompts: Prompts
    form: Form

    @property
    def path(self) -> str:
        return PATHS[self.form.endpoint]

    def body(self, group: int, index: int, output_len: int) -> dict[str, Any]:
        """Request `index` of group `group`."""
        prompt = self.form.prompt(self.prompts, group, index)
        return self.form.body(self.model, prompt, output_len)


async def find_target(
    client: HttpClient, endpoint: str, model: str | None, prompts: Prompts
) -> Target:
    """Ask the server what it is, then probe which form it takes.

    Raises ConfigError (no server, or one that takes no form), AuthError, ModelNotFoundError,
    UnavailableError.
    """
    try:
        card = _model_card(await client.get("/v1/models"), model)
        version = _json(await client.get("/version"))
    except OSError as error:
        raise ConfigError(
            f"No server answers ({type(error).__name__}: {error}).",
            cure="Start one, or correct --url.",
        ) from error
    name = str(version.get("version", ""))
    if not prompts.vocab_size:
        prompts = replace(prompts, vocab_size=int(card.get("vocab_size") or SAFE_VOCAB_SIZE))
    return await _probe(client, Target(str(card["id"]), name, prompts, forms(endpoint)[0]))


async def _probe(client: HttpClient, target: Target) -> Target:
    """The target with the first form that its server takes."""
    for index, form in enumerate(forms(target.form.endpoint)):
        target = replace(target, form=form)
        body = encode(target.body(PROBE_GROUP, index, PROBE_LEN))
        seen = await exchange(client, target.path, body)
        if not seen.error:
            return target if form.ids else _calibrated(target, seen)
        if seen.status not in (400, 422):
            break
    raise _probe_error(seen)


def _calibrated(target: Target, seen: Exchange) -> Target:
    """Words a token, as the probe found it: text prompts then come out near the wanted length."""
    if not seen.prompt_tokens:
        return target
    ratio = target.prompts.length / seen.prompt_tokens
    return replace(target, form=replace(target.form, words_per_token=ratio))


def _probe_error(seen: Exchange) -> PenstockError:
    message = f"The server did not serve a first request: {seen.error}. {seen.detail}".rstrip()
    if seen.status == 401:
        return AuthError(message, cure="Give the key with --api-key.")
    if seen.status == 404:
        return ModelNotFoundError(message, cure="Choose another --model or --endpoint.")
    if seen.status in (429, 503):
        return UnavailableError(message, cure="Wait until it is ready and idle.")
    return ConfigError(message, cure="Check --url, --endpoint, --input-len and --output-len.")


def _model_card(response: Response, model: str | None) -> dict[str, Any]:
    """The entry of /v1/models for `model`, or the first; `model` alone where there is no list."""
    cards = _json(response).get("data") or []
    for card in cards:
        if model in (None, card.get("id")):
            return dict(card)
    if model is None:
        if response.status == 401:
            raise AuthError("The server wants an API key.", cure="Give it with --api-key.")
        raise ConfigError("The server lists no models.", cure="Name one with --model.")
    return {"id": model}


def _json(response: Response) -> dict[str, Any]:
    """The body if it is a JSON object of a good response, else nothing."""
    try:
        data = msgspec.json.decode(bytes(response.body)) if response.ok else {}
    except msgspec.DecodeError:
        return {}
    return data if isinstance(data, dict) else {"version": data}
