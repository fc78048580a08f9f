"""The body fields of the endpoints beside chats and completions: one table, as in `fields`."""

from __future__ import annotations

from penstock.server import fields, kinds
from penstock.server.fields import Field, Parsed, decode, logged, read, refused, used

BATCHES, RESPONSES = "batches", "responses"
MESSAGES, COUNT = "messages", "count_tokens"
ENDPOINTS: dict[str, str] = {
    RESPONSES: "/v1/responses",
    MESSAGES: "/v1/messages",
    COUNT: "/v1/messages/count_tokens",
    BATCHES: "/v1/batches",
}
OVER_CHAT = (RESPONSES, MESSAGES)
PROMPTS = (MESSAGES, COUNT)
_HOSTED = "a service of its maker's"
_PARTS = "text only"

FIELDS: tuple[Field, ...] = (
    # What to answer: responses
    used("input", (RESPONSES,), kinds.TEXT_OR_OBJECTS, required=True, note="text, or items"),
    used("instructions", (RESPONSES,), kinds.TEXT, note="a system message; not carried over"),
    used("previous_response_id", (RESPONSES,), kinds.TEXT, note="goes on from a stored one"),
    used("max_output_tokens", (RESPONSES,), kinds.COUNT, note="default: up to the context"),
    used("text", (RESPONSES,), kinds.OBJECT, note="`format`, as response_format of chats"),
    used("reasoning", (RESPONSES,), kinds.OBJECT, note="`effort`, as reasoning_effort of chats"),
    used("parallel_tool_calls", (RESPONSES,), kinds.BOOL, True),
    used("store", (RESPONSES,), kinds.BOOL, note="default: where there is a --data-dir"),
    # What to answer: messages
    used("messages", PROMPTS, kinds.MESSAGES, required=True),
    used("system", PROMPTS, kinds.TEXT_OR_OBJECTS, note="text, or blocks of text"),
    used("max_tokens", (MESSAGES,), kinds.COUNT, required=True),
    used("stop_sequences", (MESSAGES,), kinds.TEXTS),
    used("thinking", PROMPTS, kinds.OBJECT, note="`budget_tokens`, as thinking_token_budget"),
    # Both
    used("model", (*OVER_CHAT, COUNT), kinds.TEXT, note="absent: the model served"),
    used("tools", (*OVER_CHAT, COUNT), kinds.OBJECTS, note="functions, as chats support them"),
    used("tool_choice", (RESPONSES,), kinds.CHOICE),
    used("tool_choice", PROMPTS, kinds.OBJECT),
    used("stream", OVER_CHAT, kinds.BOOL, False),
    used("chat_template_kwargs", (*OVER_CHAT, COUNT), kinds.OBJECT),
    # How to sample, as chats
    used("temperature", OVER_CHAT, kinds.SAMPLED_NUMBER, note="default: the model's, else 1"),
    used("top_p", OVER_CHAT, kinds.SAMPLED_NUMBER, note="default: the model's, else 1"),
    used("top_k", OVER_CHAT, kinds.SAMPLED_INT, note="default: the model's; 0 or -1 is off"),
    used("min_p", OVER_CHAT, kinds.SAMPLED_NUMBER, note="default: the model's, else 0"),
    used("repetition_penalty", OVER_CHAT, kinds.SAMPLED_NUMBER),
    used("presence_penalty", OVER_CHAT, kinds.SAMPLED_NUMBER),
    used("frequency_penalty", OVER_CHAT, kinds.SAMPLED_NUMBER),
    used("logit_bias", OVER_CHAT, kinds.LOGIT_BIAS),
    used("bad_words", OVER_CHAT, kinds.SAMPLED_TEXTS),
    used("seed", OVER_CHAT, kinds.SAMPLED_INT, note="absent: one is drawn"),
    used("min_tokens", OVER_CHAT, kinds.SAMPLED_INT),
    used("stop_token_ids", OVER_CHAT, kinds.SAMPLED_TOKENS),
    used("ignore_eos", OVER_CHAT, kinds.BOOL),
    used("timeout", OVER_CHAT, kinds.SECONDS, note="deadline; also the header X-Request-Timeout"),
    used("skip_special_tokens", OVER_CHAT, kinds.BOOL),
    used("request_id", OVER_CHAT, kinds.REQUEST_ID, note="also the header X-Request-Id"),
    used("priority", OVER_CHAT, kinds.integer(-(2**31), 2**31 - 1), note="lower is sooner"),
    used("cache_salt", OVER_CHAT, kinds.SALT, note="the prefix cache is shared within one salt"),
    # Without effect on the answer
    used("metadata", (RESPONSES,), kinds.METADATA, note="kept with the response"),
    logged("metadata", (MESSAGES,)),
    logged("user", (RESPONSES,)),
    logged("safety_identifier", (RESPONSES,)),
    logged("prompt_cache_key", (RESPONSES,)),
    logged("prompt_cache_retention", (RESPONSES,)),
    logged("service_tier", OVER_CHAT),
    logged("stream_options", (RESPONSES,), "padding of events"),
    logged("cache_control", PROMPTS, "the prefix cache needs no marks"),
    logged("max_tool_calls", (RESPONSES,), "of hosted tools, which there are none of"),
    # Not here
    refused("background", (RESPONSES,), False, note="use /v1/batches"),
    refused("conversation", (RESPONSES,), note="use previous_response_id"),
    refused("context_management", (RESPONSES, *PROMPTS), note=_HOSTED),
    refused("include", (RESPONSES,), [], note="nothing more is there"),
    refused("prompt", (RESPONSES,), note=_HOSTED),
    refused("truncation", (RESPONSES,), "disabled", note="cut the input yourself"),
    refused("top_logprobs", (RESPONSES,), 0, note="use chats"),
    refused("moderation", (RESPONSES,)),
    refused("modalities", (RESPONSES,), ["text"], note=_PARTS),
    refused("container", PROMPTS, note=_HOSTED),
    refused("mcp_servers", PROMPTS, [], note=_HOSTED),
    refused("inference_geo", PROMPTS, note=_HOSTED),
    refused("output_config", PROMPTS, {}, note="use /v1/chat/completions with response_format"),
    refused("output_format", PROMPTS, note="use /v1/chat/completions with response_format"),
    # Batches
    used("input_file_id", (BATCHES,), kinds.TEXT, required=True, note="an uploaded file"),
    used("endpoint", (BATCHES,), kinds.TEXT, required=True, note="where its requests go"),
    used("completion_window", (BATCHES,), kinds.TEXT, required=True, note="`24h` alone"),
    used("metadata", (BATCHES,), kinds.METADATA, note="kept with the batch"),
    refused("output_expires_after", (BATCHES,), note="files stay until they are deleted"),
)

TABLES: dict[str, dict[str, Field]] = {
    endpoint: {field.name: field for field in FIELDS if endpoint in field.on}
    for endpoint in ENDPOINTS
}


def parse(endpoint: str, data: bytes) -> Parsed:
    """A raw body as checked values. Raises RequestError and its kin, naming the field at fault."""
    return read(TABLES[endpoint], decode(data))


def all_tables() -> dict[str, tuple[str, dict[str, Field]]]:
    """Paths and fields of every endpoint with a JSON body."""
    first = {name: (paths, fields.table(name)) for name, paths in fields.ENDPOINTS.items()}
    return first | {name: (paths, TABLES[name]) for name, paths in ENDPOINTS.items()}
