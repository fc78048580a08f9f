from __future__ import annotations

import copy
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import pytest
import tokenizers
from transformers import PreTrainedTokenizerFast

from penstock.errors import InvalidFieldError, TemplateError, UnsupportedFieldError
from penstock.text.chat import ChatRenderer, ChatTemplate
from tests import vocabularies as made

TEMPLATES = Path(__file__).parent.parent / "data" / "chat_templates"
PUBLISHED = sorted(TEMPLATES.rglob("*.jinja"))
SAMPLES = sorted(TEMPLATES.rglob("*.json"))
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}

OWN = {
    "chatml": made.CHAT_TEMPLATE,
    "helpers": (
        "{%- macro show(x) %}[{{ x | tojson(indent=2) }}]{% endmacro -%}\n"
        "{{ bos_token }}{% for m in messages %}\n"
        "  {% if m.role == 'system' %}{% continue %}{% endif %}\n"
        "  {%- generation -%} {{ show(m) }} {%- endgeneration -%}\n"
        "  {% if loop.index > 7 %}{% break %}{% endif %}\n"
        "{% endfor %}\n"
        "{{ tools | tojson }} {{ documents | tojson }} {{ enable_thinking }} {{ eos_token }}\n"
        "{{ 'ü<&>' | tojson }}{{ {'b': 1, 'a': [true, none]} | tojson(sort_keys=true) }}"
        "{{ [1, 2] | tojson(separators=(',', ':')) }}"
    ),
    "scope": (
        "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}"
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}"
        "{{ ns.n }}{{ messages[-1].content.split('e')[-1] | trim }}{{ messages[0]['none'] }}"
    ),
    "values": (
        "{% set d = dict([('a', 1)], b=2) %}{% set ns = namespace({'x': 1}, y=d.b) %}"
        "{{ ns.x + ns.y }}{{ dict.fromkeys('ab', 0) | tojson }}"
        "{% for k, v in d | dictsort %}{{ k }}{{ v }}{% endfor %}{{ d.items() | list }}"
    ),
    "reasoning": (
        "{% for m in messages %}{{ m.role }}{% if m.reasoning_content is defined %}"
        "<think>{{ m.reasoning_content }}/{{ m.thinking }}</think>{% endif %}{{ m.content }}"
        "{{ m.tool_calls }}{% endfor %}"
    ),
}
CHATS: dict[str, list[dict[str, Any]]] = {
    "one": [{"role": "user", "content": "Hello, wörld 👋"}],
    "spaces": [
        {"role": "user", "content": "  Hello \n"},
        {"role": "assistant", "content": " Hi  "},
    ],
    "system": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello", "reasoning": "easy", "name": None},
        {"role": "user", "content": "And <s>again</s>?"},
    ],
    "disorder": [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}],
}
TOOLS = [{"type": "function", "function": {"name": "f", "description": "é", "parameters": {}}}]


def oracle(template: str) -> PreTrainedTokenizerFast:
    backend = tokenizers.Tokenizer.from_str(made.sentencepiece_json())
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template, **SPECIAL)


def renderer(template: str) -> ChatRenderer:
    return ChatRenderer({"default": template}, SPECIAL)


def same(template: str, chat: list[dict[str, Any]], **options: Any) -> bool:
    """Both give one text, or both refuse; whether there was a text."""
    theirs = oracle(template)
    variables = {"enable_thinking": False}
    wanted = refusal = ""
    try:
        wanted = theirs.apply_chat_template(
            copy.deepcopy(chat), tokenize=False, **options, **variables
        )
    except (jinja2.TemplateError, TypeError) as error:
        refusal = str(error).rstrip(".")
    if refusal:
        with pytest.raises(TemplateError, match=re.escape(refusal)):
            renderer(template).render(chat, template_kwargs=variables, **options)
        return False
    text = renderer(template).render(chat, template_kwargs=variables, **options)
    assert text == wanted
    ids = made.sentencepiece().encode(text, add_special_tokens=False)
    assert ids == theirs(wanted, add_special_tokens=False)["input_ids"]
    return True


@pytest.mark.parametrize("name", OWN)
def test_own_templates_equal_transformers(name: str) -> None:
    for chat in CHATS.values():
        for prompt in (False, True):
            assert same(OWN[name], chat, add_generation_prompt=prompt)
            assert same(OWN[name], chat, add_generation_prompt=prompt, tools=TOOLS, documents=TOOLS)


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_published_templates_equal_transformers(path: Path) -> None:
    template = path.read_text(encoding="utf-8")
    rendered = [
        same(template, chat, add_generation_prompt=prompt)
        for chat in CHATS.values()
        for prompt in (False, True)
    ]
    assert sum(rendered) >= 2


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_continuing_equals_transformers(path: Path) -> None:
    template = path.read_text(encoding="utf-8")
    for tail in ("Once upon a", "  padded "):
        chat = [{"role": "user", "content": "Tell"}, {"role": "assistant", "content": tail}]
        options = {"add_generation_prompt": False, "continue_final_message": True}
        assert same(template, chat, **options)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_mistral_samples_equal_transformers(path: Path) -> None:
    """Conversations with tools; the API carries arguments as text, templates read objects."""
    template = (TEMPLATES / "mistral-common" / "v3.jinja").read_text(encoding="utf-8")
    sample = json.loads(path.read_text(encoding="utf-8"))
    chat, tools = sample["messages"], sample["tools"] or None
    parsed = copy.deepcopy(chat)
    for call in [call for message in parsed for call in message.get("tool_calls") or ()]:
        call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    wanted = oracle(template).apply_chat_template(parsed, tools=tools, tokenize=False)
    text = renderer(template).render(chat, tools=tools, add_generation_prompt=False)
    assert text == wanted
    assert made.sentencepiece().encode(text, False).count(1) == 1


def test_content_parts() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    chat = [{"role": "user", "content": parts}]
    plain = renderer("{{ messages[0].content }}")
    assert plain.render(chat) == "a\nb"
    loop = "{% for p in messages[0].content %}<{{ p.text }}>{% endfor %}"
    assert renderer(loop).render(chat) == "<a><b>"
    assert renderer(loop).render([{"role": "user", "content": "c"}]) == "<c>"
    both = (
        "{% for m in messages %}{% set parts = m['content'] | selectattr('type') %}"
        "{% if m.content is string %}{{ m.content }}{% else %}"
        "{% for p in parts %}<{{ p.text }}>{% endfor %}{% endif %}{% endfor %}"
    )
    assert renderer(both).render(chat) == "<a><b>"
    assert renderer(both).render([{"role": "user", "content": "c"}]) == "c"
    ends_open = renderer(loop).render(
        chat, add_generation_prompt=False, continue_final_message=True
    )
    assert ends_open == "<a><b"


@pytest.mark.parametrize(
    ("messages", "error", "param"),
    [
        ([], InvalidFieldError, "messages"),
        ("hi", InvalidFieldError, "messages"),
        (["hi"], InvalidFieldError, "messages[0]"),
        ([{"content": "a"}], InvalidFieldError, "messages[0]"),
        ([{"role": "user", "content": 3}], InvalidFieldError, "messages[0].content"),
        ([{"role": "user", "content": ["a"]}], InvalidFieldError, "messages[0].content[0]"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
            UnsupportedFieldError,
            "messages[0].content[0]",
        ),
        (
            [{"role": "user", "content": [{"type": "text", "text": 3}]}],
            InvalidFieldError,
            "messages[0].content[0]",
        ),
        ([{"role": "a", "tool_calls": 3}], InvalidFieldError, "messages[0].tool_calls"),
        ([{"role": "a", "tool_calls": [3]}], InvalidFieldError, "messages[0].tool_calls[0]"),
        (
            [{"role": "a", "tool_calls": [{"function": {"arguments": "{"}}]}],
            InvalidFieldError,
            "messages[0].tool_calls[0]",
        ),
    ],
)
def test_bad_messages(messages: Any, error: type[Exception], param: str) -> None:
    with pytest.raises(error) as raised:
        renderer("x").render(messages)
    assert raised.value.param == param  # type: ignore[attr-defined]


def test_template_errors() -> None:
    chat = CHATS["one"]
    with pytest.raises(TemplateError, match=r"no chat template.*--chat-template"):
        ChatRenderer({}, {}).render(chat)
    with pytest.raises(TemplateError, match=r"not valid: Expected an expr.*--chat-template"):
        ChatTemplate("{% for %}")
    with pytest.raises(TemplateError, match="Only two roles, please"):
        renderer("{{ raise_exception('Only two roles, please!') }}").render(chat)
    with pytest.raises(TemplateError, match="drops the end"):
        renderer("x").render(chat, add_generation_prompt=False, continue_final_message=True)
    for code in (
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ dict.__base__.__subclasses__() }}",
        "{{ namespace(__class__=3) }}",
        "{% set ns = namespace() %}{% set ns._x = 3 %}",
        "{{ range(10 ** 9) | list }}",
        "{{ 1 / 0 }}",
    ):
        with pytest.raises(TemplateError, match="refused the messages"):
            renderer(code).render(chat)
    with pytest.raises(TemplateError, match="recurses"):
        renderer("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}").render(chat)


def test_options() -> None:
    chat = CHATS["one"]
    with pytest.raises(InvalidFieldError, match="exclude each other"):
        renderer("x").render(chat, continue_final_message=True)
    with pytest.raises(InvalidFieldError, match="needs a last message with text"):
        renderer("x").render(
            [{"role": "assistant"}], add_generation_prompt=False, continue_final_message=True
        )
    with pytest.raises(InvalidFieldError, match="must not set tools"):
        renderer("x").render(chat, template_kwargs={"tools": []})
    named = ChatRenderer({"default": "d", "tool_use": "t"}, {})
    assert named.render(chat) == "d"
    assert named.render(chat, tools=[]) == "d"
    assert named.render(chat, tools=TOOLS) == "t"
    now = ChatRenderer(
        {"default": "{{ strftime_now('%d %b %Y') }}"}, {}, lambda: datetime(2024, 7, 1)
    )
    assert now.render(chat) == "01 Jul 2024"


def test_the_callers_messages_stay_as_they_are() -> None:
    chat = [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
    before = copy.deepcopy(chat)
    loop = "{% for p in messages[0].content %}<{{ p.text }}>{% endfor %}"
    renderer(loop).render(chat, add_generation_prompt=False, continue_final_message=True)
    assert chat == before
