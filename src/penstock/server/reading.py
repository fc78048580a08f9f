"""Prompts that are read and not continued: embeddings, and the log-likelihood of texts.

Both are requests of the engine like any other: batched, cached and queued with them. The one token
that each draws is dropped.
"""

from __future__ import annotations

import base64
import math
from array import array
from collections.abc import Sequence
from functools import partial
from typing import Any

from penstock.engine.client import ModelInfo
from penstock.errors import InvalidFieldError, UnsupportedFieldError
from penstock.llm import AsyncLLM, Generation, SamplingParams
from penstock.server import kinds
from penstock.server.calls import Asked, Call, make_call
from penstock.server.fields import Parsed
from penstock.server.replies import FLOOR, Json, Tokens
from penstock.server.service import Service

READ: dict[str, Any] = {"max_tokens": 1, "temperature": 0.0, "ignore_eos": True}


def embeddings_call(llm: AsyncLLM, body: Parsed, asked: Asked, pooling: str) -> Call:
    """pooling: of a body that names none. Raises InvalidFieldError, UnsupportedFieldError."""
    pooling = body["pooling"] or pooling
    if pooling not in ("last", "mean"):
        raise kinds.wrong("pooling", "last or mean", pooling)
    if body["encoding_format"] not in ("float", "base64"):
        raise kinds.wrong("encoding_format", "float or base64", body["encoding_format"])
    _check_dimensions(body["dimensions"], llm.info)
    params = SamplingParams(**READ)
    special = body["add_special_tokens"]
    prompts = [
        partial(llm.generate, prompt, params, pooling=pooling, add_special_tokens=special)
        for prompt in body["input"]
    ]
    return make_call(llm, body, asked, params, Tokens(None), prompts)


def _check_dimensions(wanted: int | None, info: ModelInfo) -> None:
    if wanted in (None, info.hidden_size):
        return
    sizes = info.shorter_embeddings
    if not sizes:
        raise UnsupportedFieldError(
            f"This model's embeddings have {info.hidden_size} dimensions and it was not trained to "
            "have them cut.",
            cure="Leave dimensions away.",
            param="dimensions",
        )
    fits = 1 <= wanted < info.hidden_size if sizes == (0,) else wanted in sizes
    if not fits:
        words = f"1 to {info.hidden_size}" if sizes == (0,) else ", ".join(map(str, sizes))
        raise kinds.wrong("dimensions", f"one of {words}", wanted)


async def embed(service: Service, call: Call, body: Parsed) -> Json:
    """The reply of /v1/embeddings."""
    async with service.running(call) as generations:
        data = []
        for index, generation in enumerate(generations):
            await generation.result()
            assert generation.embedding is not None
            vector = shaped(generation.embedding, body["dimensions"], body["normalize"])
            shown: Any = vector.tolist()
            if body["encoding_format"] == "base64":
                shown = base64.b64encode(vector.tobytes()).decode()
            data.append({"object": "embedding", "index": index, "embedding": shown})
        usage = _usage(generations)
    return {
        "object": "list",
        "data": data,
        "model": call.adapter or service.names[0],
        "usage": usage,
    }


def shaped(vector: Sequence[float], size: int | None, normalize: bool) -> array[float]:
    """Cut to `size` and to length 1, as float32."""
    found = vector[:size]
    if normalize:
        length = max(math.sqrt(math.fsum(x * x for x in found)), 1e-12)
        found = [x / length for x in found]
    return array("f", found)


class Pairs:
    """Texts whose continuations are scored."""

    def __init__(self, contexts: list[str], continuations: list[str]) -> None:
        """One context serves all continuations. Raises InvalidFieldError."""
        if len(contexts) == 1:
            contexts = contexts * len(continuations)
        if len(contexts) != len(continuations):
            raise InvalidFieldError(
                f"{len(contexts)} contexts for {len(continuations)} continuations.",
                cure="Send one context, or one for each continuation.",
                param="context",
            )
        self.texts = list(zip(contexts, continuations, strict=True))
        self.ids: list[list[int]] = []
        self.starts: list[int] = []
        """index of each continuation's first token"""

    async def tokenize(self, llm: AsyncLLM, special: bool) -> None:
        """Both texts as one, so that the tokens are those that the model would read; the spaces
        at a context's end go over to the continuation, whose token they are part of (the rule of
        lm-evaluation-harness). Raises InvalidFieldError."""
        for context, continuation in self.texts:
            kept = context.rstrip()
            ids = await llm.tokenize(context + continuation, special)
            start = len(await llm.tokenize(kept, special)) if kept or special else 0
            if start == 0 or start >= len(ids):
                which = "context" if start == 0 else "continuation"
                raise InvalidFieldError(
                    f"The {which} {(context, continuation)[bool(start)][:60]!r} has no tokens.",
                    cure="Give it some text, such as the model's first token.",
                    param=which,
                )
            self.ids.append(ids)
            self.starts.append(start)


def score_call(llm: AsyncLLM, body: Parsed, asked: Asked, pairs: Pairs) -> Call:
    """Raises InvalidFieldError."""
    params = SamplingParams(**READ, prompt_logprobs=0)
    prompts = [partial(llm.generate, ids, params) for ids in pairs.ids]
    return make_call(llm, body, asked, params, Tokens(None), prompts)


async def score(service: Service, call: Call, pairs: Pairs) -> Json:
    """The reply of /v1/score."""
    async with service.running(call) as generations:
        data = []
        for index, generation in enumerate(generations):
            result = await generation.result()
            assert result.prompt_logprobs is not None
            scored = result.prompt_logprobs[pairs.starts[index] :]
            found = [next(iter(position.values())) for position in scored if position]
            logprobs = [max(token.logprob, FLOOR) for token in found]
            data.append(
                {
                    "object": "score",
                    "index": index,
                    "logprob": math.fsum(logprobs),
                    "is_greedy": all(token.rank == 1 for token in found),
                    "tokens": [token.decoded_token for token in found],
                    "token_ids": pairs.ids[index][pairs.starts[index] :],
                    "token_logprobs": logprobs,
                }
            )
        usage = _usage(generations)
    return {
        "object": "list",
        "data": data,
        "model": call.adapter or service.names[0],
        "usage": usage,
    }


def _usage(generations: Sequence[Generation]) -> Json:
    tokens = sum(generation.usage.prompt_tokens for generation in generations)
    return {"prompt_tokens": tokens, "total_tokens": tokens}
