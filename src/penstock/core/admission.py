"""Whether a request can ever run, and how far."""

from __future__ import annotations

from penstock.core.limits import Limits
from penstock.core.request import Submission
from penstock.errors import ContextLengthError, InvalidFieldError


def most_tokens(submission: Submission, limits: Limits, room: int) -> int:
    """Most tokens, prompt included, of a request; the KV of the last one is never needed.

    room: tokens whose KV the cache holds for one request. Raises InvalidFieldError or
    ContextLengthError for one that can never run.
    """
    num_prompt, wanted = len(submission.prompt), submission.sampling.max_tokens
    if num_prompt == 0:
        raise InvalidFieldError("The prompt has no tokens.", param="prompt")
    if submission.adapter is not None and not limits.max_adapters:
        raise InvalidFieldError("This engine has no slots for adapters.", param="model")
    context = limits.max_model_len
    if num_prompt + (wanted or 1) > context:
        raise ContextLengthError(
            f"The prompt has {num_prompt} tokens and {wanted or 1} are to be generated, "
            f"but the context holds {context}.",
            cure="Shorten the prompt or lower max_tokens.",
            param="prompt" if num_prompt >= context else "max_tokens",
        )
    limit = num_prompt + wanted if wanted is not None else context
    if limit - 1 > room and (wanted is not None or num_prompt > room):
        raise ContextLengthError(
            f"The request may need the KV of {limit - 1} tokens, but the cache holds {room}.",
            cure="Lower max_tokens, or serve with a larger --kv-cache-memory-bytes.",
            param="max_tokens",
        )
    limit = min(limit, room + 1)
    output = submission.output
    full = num_prompt + len(output) >= limit
    if output and (full or output[-1] in submission.sampling.stop_ids):
        raise InvalidFieldError("The output is complete already.", param="output")
    return limit
