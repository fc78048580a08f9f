"""The body fields of the endpoints beside chats and completions: one table, as in `fields`."""

from __future__ import annotations

from penstock.server import fields, kinds
from penstock.server.fields import Field, Parsed, decode, logged, read, refused, used

BATCHES, RESPONSES = "batches", "responses"
LOAD_ADAPTER, UNLOAD_ADAPTER = "load_adapter", "unload_adapter"
MESSAGES, COUNT = "messages", "count_tokens"
EMBEDDINGS, SCORE, GENERATE = "embeddings", "score", "generate"
ENDPOINTS: dict[str, str] = {
    RESPONSES: "/v1/responses",
    MESSAGES: "/v1/messages",
    COUNT: "/v1/messages/count_tokens",
    EMBEDDINGS: "/v1/embeddings",
    SCORE: "/v1/score",
    GENERATE: "/generate",
    BATCHES: "/v1/batches",
    LOAD_ADAPTER: "/v1/load_lora_adapter",
    UNLOAD_ADAPTER: "/v1/unload_lora_adapter",
}
OVER_CHAT = (RESPONSES, MESSAGES)
SAMPLED = (*OVER_CHAT, GENERATE)
READ = (EMBEDDINGS, SCORE)
SERVED = (*SAMPLED, *READ)
PROMPTS = (MESSAGES, COUNT)
ADAPTERS = (LOAD_ADAPTER, UNLOAD_ADAPTER)
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
    # What to read, and how
    used("input", (EMBEDDINGS,), kinds.PROMPT, required=True, note="text or token ids"),
    used("encoding_format", (EMBEDDINGS,), kinds.TEXT, "float", "`float` or `base64`"),
    used("dimensions", (EMBEDDINGS,), kinds.COUNT, note="fewer, where the model was trained to"),
    used("pooling", (EMBEDDINGS,), kinds.TEXT, note="`last` or `mean`; default: --pooling"),
    used("normalize", (EMBEDDINGS,), kinds.BOOL, True, "to length 1"),
    used("context", (SCORE,), kinds.ONE_OR_MORE, required=True, note="one for all, or one each"),
    used("continuation", (SCORE,), kinds.ONE_OR_MORE, required=True, note="what is scored"),
    used("add_special_tokens", READ, kinds.BOOL, True),
    # Ids in, ids out
    used("token_ids", (GENERATE,), kinds.TOKENS, required=True, note="the prompt"),
    used("n", (GENERATE,), kinds.SAMPLED_INT, 1),
    used("max_tokens", (GENERATE,), kinds.COUNT, note="default: 16"),
    used("bad_words_ids", (GENERATE,), kinds.ID_LISTS),
    used("logprobs", (GENERATE,), kinds.SAMPLED_INT, note="alternatives; 0: the token alone"),
    used("prompt_logprobs", (GENERATE,), kinds.SAMPLED_INT, note="not in streams"),
    used("stream_options", (GENERATE,), kinds.STREAM_OPTIONS),
    # All
    used("model", (*SERVED, COUNT), kinds.TEXT, note="absent: the model served"),
    used("tools", (*OVER_CHAT, COUNT), kinds.OBJECTS, note="functions, as chats support them"),
    used("tool_choice", (RESPONSES,), kinds.CHOICE),
    used("tool_choice", PROMPTS, kinds.OBJECT),
    used("stream", SAMPLED, kinds.BOOL, False),
    used("chat_template_kwargs", (*OVER_CHAT, COUNT), kinds.OBJECT),
    # How to sample, as chats
    used("temperature", SAMPLED, kinds.SAMPLED_NUMBER, note="default: the model's, else 1"),
    used("top_p", SAMPLED, kinds.SAMPLED_NUMBER, note="default: the model's, else 1"),
    used("top_k", SAMPLED, kinds.SAMPLED_INT, note="default: the model's; 0 or -1 is off"),
    used("min_p", SAMPLED, kinds.SAMPLED_NUMBER, note="default: the model's, else 0"),
    used("repetition_penalty", SAMPLED, kinds.SAMPLED_NUMBER),
    used("presence_penalty", SAMPLED, kinds.SAMPLED_NUMBER),
    used("frequency_penalty", SAMPLED, kinds.SAMPLED_NUMBER),
    used("logit_bias", SAMPLED, kinds.LOGIT_BIAS),
    used("bad_words", OVER_CHAT, kinds.SAMPLED_TEXTS),
    used("seed", SAMPLED, kinds.SAMPLED_INT, note="absent: one is drawn"),
    used("min_tokens", SAMPLED, kinds.SAMPLED_INT),
    used("stop_token_ids", SAMPLED, kinds.SAMPLED_TOKENS),
    used("ignore_eos", SAMPLED, kinds.BOOL),
    used("timeout", SERVED, kinds.SECONDS, note="deadline; also the header X-Request-Timeout"),
    used("skip_special_tokens", SAMPLED, kinds.BOOL),
    used("request_id", SERVED, kinds.REQUEST_ID, note="also the header X-Request-Id"),
    used("priority", SERVED, kinds.integer(-(2**31), 2**31 - 1), 0, note="lower is sooner"),
    used("slo_class", SERVED, kinds.SLO_CLASS, note="also the header X-Slo-Class; policy `slo`"),
    used("cache_salt", SERVED, kinds.SALT, note="the prefix cache is shared within one salt"),
    # Without effect on the answer
    used("metadata", (RESPONSES,), kinds.METADATA, note="kept with the response"),
    logged("metadata", (MESSAGES,)),
    logged("user", (RESPONSES, EMBEDDINGS)),
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
    refused("truncate_prompt_tokens", (*READ, GENERATE), note="cut it yourself"),
    refused("stop", (GENERATE,), note="of text: use stop_token_ids"),
    refused("inference_geo", PROMPTS, note=_HOSTED),
    refused("output_config", PROMPTS, {}, note="use /v1/chat/completions with response_format"),
    refused("output_format", PROMPTS, note="use /v1/chat/completions with response_format"),
    # Batches
    used("input_file_id", (BATCHES,), kinds.TEXT, required=True, note="an uploaded file"),
    used("endpoint", (BATCHES,), kinds.TEXT, required=True, note="where its requests go"),
    used("completion_window", (BATCHES,), kinds.TEXT, required=True, note="`24h` alone"),
    used("metadata", (BATCHES,), kinds.METADATA, note="kept with the batch"),
    refused("output_expires_after", (BATCHES,), note="files stay until they are deleted"),
    # Adapters
    used("lora_name", ADAPTERS, kinds.SALT, required=True),
    used("lora_path", (LOAD_ADAPTER,), kinds.SALT, required=True, note="a folder of the server's"),
    logged("lora_int_id", (UNLOAD_ADAPTER,), "the name is enough"),
    refused("load_inplace", (LOAD_ADAPTER,), False, note="unload it first"),
    refused("base_model_name", (LOAD_ADAPTER,), note="there is one model"),
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
