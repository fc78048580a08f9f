"""Reasoning told apart from answers, however the text is cut."""

from __future__ import annotations

import pytest

from penstock.engine.hub import DEMO
from penstock.errors import ConfigError
from penstock.text.pieces import Answer
from penstock.text.reasoning import FORMATS, NAMES, ReasoningParser, Section, choose, detect
from tests.grammar.walks import ids_of, vocabulary
from tests.text.toolcalls.test_parser import random_splits

THINK = FORMATS["think"]
CASES = [
    (Section.MAYBE, "<think>\nHm.\n</think>\n\nYes </think>.", "Hm.", "Yes </think>."),
    (Section.MAYBE, "\n <think>a</think>b", "a", "b"),
    (Section.MAYBE, "No <think>a</think>", "", "No <think>a</think>"),
    (Section.MAYBE, "<thin", "", "<thin"),
    (Section.MAYBE, "<think></think>b", "", "b"),
    (Section.MAYBE, "<think> a\n\nb </thin", "a\n\nb </thin", ""),
    (Section.OPEN, "Hm </thi m\n\n</think>\n\n", "Hm </thi m", ""),
    (Section.OPEN, "Hm", "Hm", ""),
    (Section.CLOSED, "<think>a", "", "<think>a"),
]


def read(section: Section, parts: list[str]) -> tuple[str, str]:
    parser, answer = ReasoningParser(THINK, section), Answer()
    for part in parts:
        answer.add(parser.feed(part))
    answer.add(parser.end())
    return answer.reasoning, answer.content


@pytest.mark.parametrize(("section", "text", "reasoning", "content"), CASES)
def test_sections(section: Section, text: str, reasoning: str, content: str) -> None:
    assert read(section, [text]) == (reasoning, content)
    assert read(section, list(text)) == (reasoning, content)
    for parts in random_splits(text, 40):
        assert read(section, parts) == (reasoning, content), parts


@pytest.mark.slow
@pytest.mark.parametrize(("section", "text", "reasoning", "content"), CASES)
def test_sections_cut_in_10_000_ways(
    section: Section, text: str, reasoning: str, content: str
) -> None:
    for parts in random_splits(text, 10_000):
        assert read(section, parts) == (reasoning, content), parts


@pytest.mark.parametrize(
    ("name", "prompt", "section"),
    [
        ("think", "<|im_start|>assistant\n", Section.MAYBE),
        ("think", "<|im_start|>assistant\n<think>\n", Section.OPEN),
        ("think", "<|im_start|>assistant\n<think>\n\n</think>\n\n", Section.CLOSED),
        ("deepseek_r1", "<｜Assistant｜>", Section.OPEN),
    ],
)
def test_prompts_tell_where_an_answer_begins(name: str, prompt: str, section: Section) -> None:
    assert FORMATS[name].section(prompt) is section


def test_detection() -> None:
    assert detect(["…<think>…</think>…"]) is FORMATS["think"]
    assert detect(["[THINK]x[/THINK]"]) is FORMATS["mistral"]
    assert detect(["<|channel|>"]) is FORMATS["gpt_oss"]
    assert detect([(DEMO / "chat_template.jinja").read_text(encoding="utf-8")]) is None


def test_a_choice() -> None:
    assert choose("none", ["<think></think>"]) is None
    assert choose("auto", ["<think></think>"]) is THINK
    assert [choose(name, []) for name in NAMES[2:]] == list(FORMATS.values())
    with pytest.raises(ConfigError, match="deepseek_r1"):
        choose("r1", [])


@pytest.mark.parametrize("section", Section)
def test_a_grammar_begins_behind_it(section: Section) -> None:
    from penstock.grammar import spec

    specials = {"<think>": 9, "</think>": 10}
    before, rules = THINK.rules(section, specials)
    matcher = vocabulary().compile(spec.choice(["q"]).text(before, rules)).matcher()
    ids = set(ids_of(matcher.allowed()[0]))
    assert (9 in ids) == (section is Section.MAYBE)
    assert (10 in ids) == (section is Section.OPEN)
    assert section is Section.OPEN or len(ids) <= 2
