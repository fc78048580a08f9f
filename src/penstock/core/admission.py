"""Which requests can be served at all, whatever else is going on."""

from __future__ import annotations

from penstock.core.request import Request, Submission
from penstock.errors import ContextLengthError, InvalidFieldError


def token_limit(submission: Submission, context: int, room: int) -> int:
    """Most tokens, prompt included; the KV of the last one is never needed.

    context: tokens of the model's context; room: tokens whose KV the cache holds for one request.
    Raises InvalidFieldError and ContextLengthError.
    """
    num_prompt, wanted = len(submission.prompt), submission.sampling.max_tokens
    if num_prompt == 0:
        raise InvalidFieldError("The prompt has no tokens.", param="prompt")
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
    return min(limit, room + 1)


def check_output(request: Request) -> None:
    """A request that comes with output must have some left to write. Raises InvalidFieldError."""
    output = request.submission.output
    if output and (len(request.tokens) >= request.limit or output[-1] in request.stops):
        raise InvalidFieldError("The output is complete already.", param="output")
