"""Conversations of many kinds rendered as transformers renders them, by every template at hand:
system, tools, tool results, several turns, thinking kept or dropped, prompts and prefills."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pytest
import tokenizers
from transformers import PreTrainedTokenizerFast

from penstock.engine.hub import DEMO
from penstock.errors import TemplateError
from penstock.text.chat import ChatRenderer
from tests import vocabularies as made

TEMPLATES = Path(__file__).parents[1] / "data" / "chat_templates"
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}

THINKING = """{%- if tools %}{{ '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{ messages[0].content + '\\n\\n' }}{% endif %}
{%- for tool in tools %}{{ '\\n' }}{{ tool | tojson }}{% endfor %}{{ '<|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(last=messages | length - 1, open=true) %}
{%- for message in messages[::-1] %}
  {%- if ns.open and message.role == 'user' %}
    {%- set ns.open = false %}{% set ns.last = messages | length - loop.index %}
  {%- endif %}
{%- endfor %}
{%- for message in messages %}
  {%- set content = message.content if message.content is string else '' %}
  {%- if message.role == 'assistant' %}
    {%- set thought = '' %}
    {%- if message.reasoning_content is string %}{% set thought = message.reasoning_content %}
    {%- elif '</think>' in content %}
      {%- set thought = content.split('</think>')[0].split('<think>')[-1].lstrip('\\n') %}
      {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if loop.index0 > ns.last and (loop.last or thought) %}
      {{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
    {%- else %}{{ content }}{% endif %}
    {%- for call in message.tool_calls or [] %}
      {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
      {{- call.function.arguments | tojson + '}\\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
  {%- elif message.role == 'tool' %}
    {%- if messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}
    {{- '\\n<tool_response>\\n' + content + '\\n</tool_response>' }}
    {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\\n' }}{% endif %}
  {%- elif not loop.first or message.role != 'system' %}
    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}
  {%- if enable_thinking is defined and enable_thinking is false %}
    {{- '<think>\\n\\n</think>\\n\\n' }}
  {%- endif %}
{%- endif %}"""
"""of the kind that reasoning models with tools bring: earlier thoughts dropped, tool results in
runs, an empty section where thinking is off"""

SOURCES = {
    **{path.stem: path.read_text("utf-8") for path in sorted(TEMPLATES.rglob("*.jinja"))},
    "demo": (DEMO / "chat_template.jinja").read_text("utf-8"),
    "thinking": THINKING,
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": 'The "weather" of a <city> – é',
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                "required": ["city"],
            },
        },
    }
]


def call(city: str, number: int) -> dict[str, Any]:
    arguments = json.dumps({"city": city, "days": 2}, ensure_ascii=False)
    function = {"name": "get_weather", "arguments": arguments}
    return {"id": f"callno{number:03}", "type": "function", "function": function}


USER = {"role": "user", "content": "How is the weather in Köln?"}
SYSTEM = {"role": "system", "content": "Be brief."}
RESULT = {"role": "tool", "tool_call_id": "callno001", "name": "get_weather", "content": "sunny"}
ASKED = [USER, {"role": "assistant", "content": "", "tool_calls": [call("Köln", 1)]}, RESULT]
CHATS: dict[str, list[dict[str, Any]]] = {
    "asked": [USER],
    "system": [SYSTEM, USER],
    "result": ASKED,
    "turns": [*ASKED, {"role": "assistant", "content": "Sunny."}, {"role": "user", "content": "?"}],
    "parallel": [
        SYSTEM,
        USER,
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [call("Köln", 1), call("Bonn", 2)],
        },
        RESULT,
        {**RESULT, "tool_call_id": "callno002", "content": '{"rain": true}'},
    ],
    "thoughts": [
        USER,
        {"role": "assistant", "content": "Sunny.", "reasoning_content": "It is May.\n"},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nYes."},
    ],
}
PREFILLS = ["The weather", "  in Köln \n", "<think>\nLet me"]


@cache
def peer(template: str) -> PreTrainedTokenizerFast:
    backend = tokenizers.Tokenizer.from_str(made.sentencepiece_json())
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template, **SPECIAL)


def oracle(template: str, chat: list[dict[str, Any]], **options: Any) -> str | None:
    """What transformers renders; None when the template refuses."""
    parsed = copy.deepcopy(chat)
    for message in parsed:
        if "reasoning_content" in message:
            message["thinking"] = message["reasoning_content"]
        for made_call in message.get("tool_calls") or ():
            function = made_call["function"]
            function["arguments"] = json.loads(function["arguments"])
    try:
        return str(peer(template).apply_chat_template(parsed, tokenize=False, **options))
    except (jinja2.TemplateError, TypeError, ValueError):
        return None


@cache
def renderer(template: str) -> ChatRenderer:
    return ChatRenderer({"default": template}, SPECIAL)


def check(template: str, chat: list[dict[str, Any]], **options: Any) -> bool:
    """Ours is theirs, or both refuse; whether there was a text."""
    wanted = oracle(template, chat, **options)
    variables = {k: options.pop(k) for k in ("enable_thinking",) if k in options}
    ours = renderer(template)
    if wanted is None:
        with pytest.raises(TemplateError):
            ours.render(copy.deepcopy(chat), template_kwargs=variables, **options)
        return False
    assert ours.render(copy.deepcopy(chat), template_kwargs=variables, **options) == wanted
    return True


@pytest.mark.parametrize("name", SOURCES)
def test_conversations(name: str) -> None:
    """With and without tools, with and without a prompt for the answer, thinking on and off."""
    rendered = 0
    for chat in CHATS.values():
        for tools in (None, TOOLS):
            rendered += check(SOURCES[name], chat, tools=tools, add_generation_prompt=False)
            rendered += check(
                SOURCES[name],
                chat,
                tools=tools,
                add_generation_prompt=True,
                enable_thinking=tools is None,
            )
    assert rendered >= 4


@pytest.mark.parametrize("name", SOURCES)
def test_prefills(name: str) -> None:
    """An answer that is begun stays open, whatever it begins with."""
    options = {"add_generation_prompt": False, "continue_final_message": True}
    for chat in (CHATS["asked"], CHATS["turns"]):
        for text in PREFILLS:
            begun = [*chat, {"role": "assistant", "content": text}]
            check(SOURCES[name], begun, **options)
            check(SOURCES[name], begun, tools=TOOLS, **options)


@pytest.mark.parametrize(
    ("kept", "chat"), [(True, CHATS["thoughts"]), (False, [*CHATS["thoughts"], USER])]
)
def test_thoughts_are_kept_or_dropped_by_the_template(
    kept: bool, chat: list[dict[str, Any]]
) -> None:
    text = ChatRenderer({"default": THINKING}, SPECIAL).render(chat)
    assert ("Hm." in text) == kept
    assert "May" not in text


@pytest.mark.parametrize(("thinking", "tail"), [(True, "\n"), (False, "</think>\n\n")])
def test_thinking_switched_by_the_request(thinking: bool, tail: str) -> None:
    text = ChatRenderer({"default": THINKING}, SPECIAL).render(
        [USER], template_kwargs={"enable_thinking": thinking}
    )
    assert text.endswith(tail)
    assert ("<think>" in text) == (not thinking)
