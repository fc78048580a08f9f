"""Chat templates: messages in, prompt text out.

Templates are code that came with a checkpoint, so they run in jinja2's sandbox. Output equals that
of transformers' `apply_chat_template`, whose environment the published templates are written for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.utils
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from penstock.errors import InvalidFieldError, TemplateError, UnsupportedFieldError

_END_MARK = "\N{END OF TEXT}penstock-continue "
"""Put behind a message that shall be continued, to find its end in the rendered text."""

_REASONING = ("reasoning_content", "thinking", "reasoning")
"""Names under which clients send an earlier answer's reasoning; templates read the first two."""

Message = Mapping[str, Any]


class ChatTemplate:
    """One compiled template. Raises TemplateError when the source is not valid jinja2."""

    def __init__(self, source: str, now: Callable[[], datetime] = datetime.now) -> None:
        environment = _environment(now)
        try:
            self._template = environment.from_string(source)
            tree = environment.parse(source)
        except jinja2.TemplateError as error:
            raise TemplateError(
                f"The chat template is not valid: {_words(error)}",
                cure="Mend it, or give another one by --chat-template.",
            ) from None
        self.reads_parts = _loops_over_content(tree)
        """it walks through lists of content parts by itself"""
        self.reads_strings = not self.reads_parts or _tests_for_string(tree)

    def render(self, messages: list[dict[str, Any]], variables: Mapping[str, Any]) -> str:
        """Raises TemplateError with the template's own words when it refuses the messages."""
        try:
            return self._template.render(messages=messages, **variables)
        except RecursionError:
            raise TemplateError("The chat template recurses without end.") from None
        except Exception as error:  # whatever the template's code does wrong
            raise TemplateError(
                f"The chat template refused the messages: {_words(error)}", param="messages"
            ) from error


class ChatRenderer:
    """Renders chats with the templates of one tokenizer.

    templates: by name; `tool_use`, where there is one, serves requests with tools.
    special_tokens: `bos_token` … as the templates' variables.
    now: the time that templates may ask for.
    """

    def __init__(
        self,
        templates: Mapping[str, str],
        special_tokens: Mapping[str, str],
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self._templates = {name: ChatTemplate(source, now) for name, source in templates.items()}
        self._special_tokens = dict(special_tokens)
        self._now = now

    def render(
        self,
        messages: list[Message],
        *,
        tools: list[dict[str, Any]] | None = None,
        documents: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        template_kwargs: Mapping[str, Any] | None = None,
        chat_template: str | None = None,
    ) -> str:
        """The prompt text, special tokens written out (encode it without adding any).

        messages: objects with `role` and `content`; content is a string or a list of
            `{"type": "text", "text": …}` parts.
        continue_final_message: leave the last message open, so that the answer goes on with it.
        template_kwargs: further variables of the template, such as enable_thinking.
        chat_template: a template in place of the tokenizer's.
        Raises InvalidFieldError, UnsupportedFieldError (other kinds of parts) and TemplateError.
        """
        if add_generation_prompt and continue_final_message:
            raise InvalidFieldError(
                "add_generation_prompt and continue_final_message exclude each other.",
                param="continue_final_message",
            )
        _refuse_reserved(template_kwargs or {})
        if chat_template is not None:
            template = ChatTemplate(chat_template, self._now)
        else:
            template = self._pick(bool(tools))
        chat = _plain_messages(messages, template)
        if continue_final_message:
            _mark_end(chat)
        variables = {
            **self._special_tokens,
            **(template_kwargs or {}),
            "tools": tools or None,
            "documents": documents,
            "add_generation_prompt": add_generation_prompt,
        }
        text = template.render(chat, variables)
        return _cut_at_mark(text) if continue_final_message else text

    def _pick(self, with_tools: bool) -> ChatTemplate:
        names = ("tool_use", "default") if with_tools else ("default",)
        for name in names:
            if name in self._templates:
                return self._templates[name]
        raise TemplateError(
            "This model has no chat template.",
            cure="Serve it with --chat-template FILE, or use completions.",
        )


def _environment(now: Callable[[], datetime]) -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_GenerationBlock, jinja2.ext.loopcontrols],
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: now().strftime(form)
    environment.globals["dict"] = _Dict()
    environment.globals["namespace"] = _Namespace
    return environment


class _Dict:
    """`dict` for templates, without the type object itself."""

    def __call__(self, *args: Any, **items: Any) -> dict[Any, Any]:
        return dict(*args, **items)

    def fromkeys(self, keys: Iterable[Any], value: Any = None) -> dict[Any, Any]:
        return dict.fromkeys(keys, value)


class _Namespace(jinja2.utils.Namespace):
    """`namespace` for templates, without names that Python gives a meaning to."""

    def __init__(self, /, *args: Any, **items: Any) -> None:
        attributes = dict(*args, **items)
        for name in attributes:
            _refuse_private(name)
        super().__init__(attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


def _refuse_private(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace must not have an attribute {name!r}")


class _GenerationBlock(jinja2.ext.Extension):
    """`{% generation %}`: marks, for training, what the assistant wrote. Only its body matters."""

    tags = {"generation"}  # noqa: RUF012 (jinja2's own declaration)

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body).set_lineno(line)


def _words(error: Exception) -> str:
    return f"{str(error).rstrip('.')}."


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Unlike jinja2's own filter: not escaped for HTML, keys in their order."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tests_for_string(tree: jinja2.nodes.Template) -> bool:
    return any(test.name == "string" for test in tree.find_all(jinja2.nodes.Test))


def _loops_over_content(tree: jinja2.nodes.Template) -> bool:
    """Whether a `for` runs over `….content`, or over a variable that was set from it."""
    names = {"content"}
    for assignment in tree.find_all(jinja2.nodes.Assign):
        target = assignment.target
        if isinstance(target, jinja2.nodes.Name) and _field(assignment.node) == "content":
            names.add(target.name)
    return any(_field(loop.iter) in names for loop in tree.find_all(jinja2.nodes.For))


def _field(node: jinja2.nodes.Node) -> str | None:
    """Last name of an expression such as `message.content | selectattr(…)`."""
    while isinstance(node, jinja2.nodes.Filter) and node.node is not None:
        node = node.node
    if isinstance(node, jinja2.nodes.Name):
        return node.name
    if isinstance(node, jinja2.nodes.Getattr):
        return node.attr
    if isinstance(node, jinja2.nodes.Getitem) and isinstance(node.arg, jinja2.nodes.Const):
        return node.arg.value if isinstance(node.arg.value, str) else None
    return None


def _refuse_reserved(template_kwargs: Mapping[str, Any]) -> None:
    for name in ("messages", "tools", "documents", "add_generation_prompt"):
        if name in template_kwargs:
            raise InvalidFieldError(
                f"chat_template_kwargs must not set {name}.",
                cure="It has a field of its own.",
                param="chat_template_kwargs",
            )


def _plain_messages(messages: list[Message], template: ChatTemplate) -> list[dict[str, Any]]:
    if not isinstance(messages, list) or not messages:
        raise InvalidFieldError("messages must be a list of one or more.", param="messages")
    return [_plain_message(m, f"messages[{i}]", template) for i, m in enumerate(messages)]


def _plain_message(message: Message, where: str, template: ChatTemplate) -> dict[str, Any]:
    """A copy in the form that templates expect: no nulls, content as the template reads it, the
    arguments of tool calls parsed (the API carries them as text)."""
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise InvalidFieldError(f"{where} must be an object with a role.", param=where)
    plain = {key: value for key, value in message.items() if value is not None}
    reasoning = next((plain[name] for name in _REASONING if name in plain), None)
    if reasoning is not None:
        plain = {"thinking": reasoning, **plain, "reasoning_content": reasoning}
    content = plain.get("content")
    if isinstance(content, list):
        texts = [_part_text(part, f"{where}.content[{i}]") for i, part in enumerate(content)]
        if template.reads_parts:
            plain["content"] = [{"type": "text", "text": text} for text in texts]
        else:
            plain["content"] = "\n".join(texts)
    elif isinstance(content, str):
        if not template.reads_strings:
            plain["content"] = [{"type": "text", "text": content}]
    elif content is not None:
        raise InvalidFieldError(
            f"{where}.content must be a string or a list of parts.", param=f"{where}.content"
        )
    if "tool_calls" in plain:
        plain["tool_calls"] = _plain_calls(plain["tool_calls"], f"{where}.tool_calls")
    return plain


def _part_text(part: Any, where: str) -> str:
    if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
        raise InvalidFieldError(f"{where} must be an object with a type.", param=where)
    if part["type"] != "text":
        raise UnsupportedFieldError(
            f"{where}: parts of type {part['type']!r} are not supported; this model reads text.",
            param=where,
        )
    if not isinstance(part.get("text"), str):
        raise InvalidFieldError(f"{where}.text must be a string.", param=where)
    return str(part["text"])


def _plain_calls(calls: Any, where: str) -> list[Any]:
    if not isinstance(calls, list):
        raise InvalidFieldError(f"{where} must be a list.", param=where)
    return [_plain_call(call, f"{where}[{i}]") for i, call in enumerate(calls)]


def _plain_call(call: Any, where: str) -> dict[str, Any]:
    if not isinstance(call, Mapping):
        raise InvalidFieldError(f"{where} must be an object.", param=where)
    function = call.get("function")
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return dict(call)
    try:
        arguments = json.loads(function["arguments"] or "{}")
    except ValueError as error:
        raise InvalidFieldError(
            f"{where}.function.arguments is not valid JSON: {error}.", param=where
        ) from None
    return {**call, "function": {**function, "arguments": arguments}}


def _mark_end(chat: list[dict[str, Any]]) -> None:
    last = chat[-1]
    content = last.get("content")
    if isinstance(content, str):
        last["content"] = content + _END_MARK
    elif content:
        content[-1]["text"] += _END_MARK
    else:
        raise InvalidFieldError(
            "continue_final_message needs a last message with text.", param="messages"
        )


def _cut_at_mark(text: str) -> str:
    """The text before the mark. A template that trims messages has taken the mark's last space:
    then the white space before the mark goes too, as it would without the mark."""
    end = text.rfind(_END_MARK.rstrip())
    if end < 0:
        raise TemplateError(
            "The chat template drops the end of the last message, so it cannot be continued.",
            param="continue_final_message",
        )
    kept = text[:end]
    return kept if text.startswith(_END_MARK, end) else kept.rstrip()
