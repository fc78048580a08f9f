"""Every body field that OpenAI's or vLLM's API knows, and what happens to it here: ONE table.

used      it does what its documentation says
logged    it cannot change the answer: accepted and logged
refused   it could change the answer and is not supported: 400, unless its value is null or equals
          the default behaviour

Nothing else is let in: an unknown field is a 400 too. `docs/api.md` is generated from this table.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec

from penstock.core.request import MAX_LOGPROBS
from penstock.errors import InvalidFieldError, RequestError, UnsupportedFieldError
from penstock.server import kinds
from penstock.server.kinds import Kind

CHAT, COMPLETIONS, TOKENIZE, DETOKENIZE = "chat", "completions", "tokenize", "detokenize"
ENDPOINTS: dict[str, str] = {
    CHAT: "/v1/chat/completions, /v1/chat/render",
    COMPLETIONS: "/v1/completions",
    TOKENIZE: "/tokenize",
    DETOKENIZE: "/detokenize",
}
BOTH = (CHAT, COMPLETIONS)
PROMPTS = (CHAT, COMPLETIONS, TOKENIZE)


class Rule(Enum):
    USED = "used"
    LOGGED = "logged"
    REFUSED = "refused"


Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    on: tuple[str, ...]
    rule: Rule
    kind: Kind = kinds.ANY
    default: Any = None
    """of a used field that is absent or null"""
    harmless: Callable[[Any, Body], bool] | None = None
    """of a refused field: whether this value, in this body, equals the default behaviour"""
    accepted: str = ""
    """of a refused field: those values in words"""
    values: tuple[Any, ...] | None = None
    """those values themselves, where they do not depend on the body"""
    note: str = ""
    required: bool = False


@dataclass(frozen=True, slots=True)
class Parsed:
    """A body that passed: every used field with its value or default, and what had no effect."""

    values: Body
    logged: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]


def used(
    name: str, on: tuple[str, ...], kind: Kind, default: Any = None, note: str = "", **more: Any
) -> Field:
    return Field(name, on, Rule.USED, kind, default, note=note, **more)


def logged(name: str, on: tuple[str, ...] = BOTH, note: str = "") -> Field:
    return Field(name, on, Rule.LOGGED, note=note)


def refused(name: str, on: tuple[str, ...], *accepted: Any, note: str = "") -> Field:
    """Refused but for null and the values in `accepted`."""

    def harmless(value: Any, _: Body) -> bool:
        return any(type(value) is type(a) and value == a for a in accepted)

    words = ", ".join(f"`{msgspec.json.encode(a).decode()}`" for a in accepted)
    return Field(
        name, on, Rule.REFUSED, harmless=harmless, accepted=words, values=accepted, note=note
    )


def _is_n(value: Any, body: Body) -> bool:
    wanted = body.get("n")
    return type(value) is int and value == (1 if wanted is None else wanted)


_SESSION = "among several engines, a hint where the prompt may be cached"
_GRAMMAR = "structured output is not supported yet"
_TOOLS = "tool calls are not supported yet"
_TEMPLATE = "refused unless --trust-request-chat-template: the client's own code would run here"

FIELDS: tuple[Field, ...] = (
    # What to answer
    used(
        "model", (*BOTH, TOKENIZE, DETOKENIZE), kinds.TEXT,
        note="or an adapter of it; absent: the model served",
    ),
    used("messages", (CHAT,), kinds.MESSAGES, required=True),
    used("messages", (TOKENIZE,), kinds.MESSAGES, note="this or `prompt`"),
    used("prompt", (COMPLETIONS,), kinds.PROMPT, required=True, note="text or token ids"),
    used("prompt", (TOKENIZE,), kinds.TEXT, note="this or `messages`"),
    used("tokens", (DETOKENIZE,), kinds.TOKENS, required=True),
    used("add_special_tokens", (COMPLETIONS,), kinds.BOOL, True),
    used("add_special_tokens", (TOKENIZE,), kinds.BOOL, None, "true for `prompt`, else false"),
    used("add_generation_prompt", (CHAT, TOKENIZE), kinds.BOOL, None, "true unless continuing"),
    used("continue_final_message", (CHAT, TOKENIZE), kinds.BOOL, False),
    used("chat_template_kwargs", (CHAT, TOKENIZE), kinds.OBJECT),
    used("return_token_strs", (TOKENIZE,), kinds.BOOL, False),
    # How to sample
    used("temperature", BOTH, kinds.SAMPLED_NUMBER, note="default: the model's, else 1"),
    used("top_p", BOTH, kinds.SAMPLED_NUMBER, note="default: the model's, else 1"),
    used("top_k", BOTH, kinds.SAMPLED_INT, note="default: the model's; 0 or -1 is off"),
    used("min_p", BOTH, kinds.SAMPLED_NUMBER, note="default: the model's, else 0"),
    used("repetition_penalty", BOTH, kinds.SAMPLED_NUMBER, note="default: the model's, else 1"),
    used("presence_penalty", BOTH, kinds.SAMPLED_NUMBER, 0.0),
    used("frequency_penalty", BOTH, kinds.SAMPLED_NUMBER, 0.0),
    used("logit_bias", BOTH, kinds.LOGIT_BIAS),
    used("bad_words", BOTH, kinds.SAMPLED_TEXTS),
    used("seed", BOTH, kinds.SAMPLED_INT, note="absent: one is drawn"),
    used("n", BOTH, kinds.SAMPLED_INT, 1),
    # When to end
    used("max_tokens", (CHAT,), kinds.COUNT, note="default: up to the context"),
    used("max_completion_tokens", (CHAT,), kinds.COUNT, note="the same as max_tokens"),
    used("max_tokens", (COMPLETIONS,), kinds.COUNT, None, "default: 16; 0 scores an `echo`"),
    used("min_tokens", BOTH, kinds.SAMPLED_INT, 0),
    used("stop", BOTH, kinds.STOP),
    used("stop_token_ids", BOTH, kinds.SAMPLED_TOKENS),
    used("include_stop_str_in_output", BOTH, kinds.BOOL, False),
    used("ignore_eos", BOTH, kinds.BOOL, False),
    used("timeout", BOTH, kinds.SECONDS, note="deadline; also the header X-Request-Timeout"),
    # What to send back
    used("stream", BOTH, kinds.BOOL, False),
    used("stream_options", BOTH, kinds.STREAM_OPTIONS),
    used("logprobs", (CHAT,), kinds.BOOL, False),
    used("top_logprobs", (CHAT,), kinds.integer(0, MAX_LOGPROBS), note="needs `logprobs`"),
    used("logprobs", (COMPLETIONS,), kinds.SAMPLED_INT),
    used("prompt_logprobs", BOTH, kinds.SAMPLED_INT, note="not in streams"),
    used("echo", (COMPLETIONS,), kinds.BOOL, False),
    used("skip_special_tokens", BOTH, kinds.BOOL, True),
    used("return_token_ids", BOTH, kinds.BOOL, False, "prompt_token_ids and token_ids in replies"),
    # How to serve it
    used("request_id", BOTH, kinds.REQUEST_ID, note="also the header X-Request-Id"),
    used("priority", BOTH, kinds.integer(-(2**31), 2**31 - 1), 0, "lower is sooner"),
    used("slo_class", BOTH, kinds.SLO_CLASS, note="also the header X-Slo-Class; policy `slo`"),
    used("cache_salt", BOTH, kinds.SALT, note="the prefix cache is shared within one salt"),
    # Without effect on the answer
    logged("user", note=_SESSION),
    logged("safety_identifier"),
    logged("service_tier"),
    logged("prompt_cache_key", note=_SESSION),
    logged("prompt_cache_options"),
    logged("prompt_cache_retention"),
    logged("metadata", note="kept in the log alone"),
    logged("prediction", (CHAT,), "a hint for speed"),
    logged("parallel_tool_calls", (CHAT,), "there are no tools"),
    refused("store", BOTH, False, note="nothing is stored"),
    # Tools, structure, reasoning
    refused("tools", (CHAT, TOKENIZE), [], note=_TOOLS),
    refused("tool_choice", (CHAT,), "none", "auto", note=_TOOLS),
    refused("functions", (CHAT,), [], note=_TOOLS),
    refused("function_call", (CHAT,), "none", "auto", note=_TOOLS),
    refused("response_format", BOTH, {"type": "text"}, note=_GRAMMAR),
    refused("structured_outputs", BOTH, {}, note=_GRAMMAR),
    refused("guided_json", BOTH, note=_GRAMMAR),
    refused("guided_regex", BOTH, note=_GRAMMAR),
    refused("guided_choice", BOTH, note=_GRAMMAR),
    refused("guided_grammar", BOTH, note=_GRAMMAR),
    refused("guided_decoding_backend", BOTH, note=_GRAMMAR),
    refused("guided_whitespace_pattern", BOTH, note=_GRAMMAR),
    refused("structural_tag", BOTH, note=_GRAMMAR),
    refused("reasoning_effort", (CHAT,), note="use chat_template_kwargs"),
    refused("reasoning", (CHAT,), note="use chat_template_kwargs"),
    refused("thinking_token_budget", BOTH),
    refused("include_reasoning", (CHAT,), True, note="reasoning stays in the text"),
    refused("verbosity", (CHAT,), "medium", note="say it in the messages"),
    # Other modalities and services
    refused("modalities", (CHAT,), ["text"], note="text only"),
    refused("audio", (CHAT,), note="text only"),
    refused("mm_processor_kwargs", (*BOTH, TOKENIZE), {}, note="text only"),
    refused("media_io_kwargs", (*BOTH, TOKENIZE), {}, note="text only"),
    refused("prompt_embeds", (COMPLETIONS,), note="text and token ids only"),
    refused("web_search_options", (CHAT,)),
    refused("moderation", BOTH),
    refused("documents", (CHAT,), [], note="put them into the messages"),
    # Ways of decoding and of rendering
    Field(
        "best_of", BOTH, Rule.REFUSED, harmless=_is_n, accepted="the value of `n`",
        note="no ranking of choices",
    ),
    refused("use_beam_search", BOTH, False),
    refused("length_penalty", BOTH, 1.0, 1, note="of beam search"),
    refused("suffix", (COMPLETIONS,), "", note="no filling-in"),
    refused("echo", (CHAT,), False),
    refused("add_special_tokens", (CHAT,), False, note="the template writes them"),
    used("chat_template", (CHAT, TOKENIZE), kinds.TEXT, note=_TEMPLATE),
    refused("spaces_between_special_tokens", BOTH, True),
    refused("truncate_prompt_tokens", PROMPTS, note="cut the prompt yourself"),
    refused("allowed_token_ids", BOTH, note="use logit_bias"),
    refused("logits_processors", BOTH, []),
    refused("repetition_detection", BOTH),
    refused("return_tokens_as_token_ids", BOTH, False, note="use return_token_ids"),
    refused("kv_transfer_params", BOTH),
    refused("vllm_xargs", BOTH, {}),
)  # fmt: skip


def table(endpoint: str) -> dict[str, Field]:
    """The fields of one endpoint by name."""
    return {field.name: field for field in FIELDS if endpoint in field.on}


_TABLES = {endpoint: table(endpoint) for endpoint in ENDPOINTS}


def parse(endpoint: str, data: bytes) -> Parsed:
    """A raw body as checked values. Raises RequestError and its kin, naming the field at fault."""
    return read(_TABLES[endpoint], decode(data))


def read(fields: Mapping[str, Field], body: Body) -> Parsed:
    """A JSON object as checked values. Raises as `parse`."""
    parsed = Parsed({f.name: f.default for f in fields.values() if f.rule is Rule.USED}, {})
    for name, value in body.items():
        if value is None:
            continue
        field = fields.get(name)
        if field is None:
            raise _unknown(name, fields)
        if field.rule is Rule.USED:
            parsed.values[name] = field.kind.read(value, name)
        elif field.rule is Rule.LOGGED:
            parsed.logged[name] = value
        elif field.harmless is None or not field.harmless(value, body):
            raise _refusal(field)
    for name, field in fields.items():
        if field.required and parsed.values[name] is None:
            raise InvalidFieldError(
                f"The field {name} is missing.", cure=f"Send {field.kind.words}.", param=name
            )
    return parsed


def decode(data: bytes) -> Body:
    """The JSON object in a body. Raises RequestError for anything else."""
    try:
        body = msgspec.json.decode(data)
    except UnicodeDecodeError as error:
        raise RequestError(
            f"The body is not valid UTF-8 (byte {error.start}).", cure="Encode it as UTF-8."
        ) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestError(
            f"The body is not valid JSON ({error}).", cure="Send a JSON object."
        ) from None
    if not isinstance(body, dict):
        raise RequestError("The body is not a JSON object.", cure='Send {"model": …, …}.')
    return body


def _unknown(name: str, fields: Mapping[str, Field]) -> UnsupportedFieldError:
    shown = name if len(name) <= 60 else name[:57] + "..."
    near = difflib.get_close_matches(name[:60], list(fields), n=1)
    cure = f"Did you mean {near[0]!r}?" if near else "The known fields are listed in docs/api.md."
    return UnsupportedFieldError(f"Unknown field {shown!r}.", cure=cure, param=shown)


def _refusal(field: Field) -> UnsupportedFieldError:
    reason = f" ({field.note})" if field.note else ""
    accepted = field.accepted.replace("`", "")
    cure = f"Leave it away, or send null or {accepted}." if accepted else "Leave it away."
    message = f"{field.name} is not supported here{reason}; it is refused, not ignored."
    return UnsupportedFieldError(message, cure=cure, param=field.name)


def schema(table: Mapping[str, Field]) -> dict[str, Any]:
    """JSON schema of an endpoint's body, for the OpenAPI document. Null is as good as absent, also
    for names that nobody knows."""
    properties = {name: _described(field) for name, field in table.items()}
    required = [name for name, field in table.items() if field.required]
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": {"type": "null"},
    }


def _described(field: Field) -> dict[str, Any]:
    found = dict(field.kind.schema)
    if field.rule is Rule.REFUSED:
        found = {"enum": [None, *field.values]} if field.values is not None else {}
    elif not field.required and found:
        found = {"anyOf": [found, {"type": "null"}]}
    if field.note:
        found["description"] = field.note
    if field.default is not None:
        found["default"] = field.default
    return found
