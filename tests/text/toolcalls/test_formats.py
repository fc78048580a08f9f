"""Which format a model's chat template shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.engine.hub import DEMO
from penstock.errors import ConfigError
from penstock.text.toolcalls.formats import FORMATS, NAMES, choose, detect

TEMPLATES = Path(__file__).parents[2] / "data" / "chat_templates"


def source(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("template", "name"),
    [
        (source("mistral-common/v3.jinja"), "mistral"),
        (source("mistral-common/v13_think.jinja"), "mistral_v11"),
        (source("chujiezheng/qwen2.5-instruct.jinja"), "hermes"),
        ((DEMO / "chat_template.jinja").read_text(encoding="utf-8"), "hermes"),
        ("{{ tools }}<|python_tag|>", "llama3"),
        ("{{ tools }}<tool_call><function=x>", "qwen3_coder"),
        ("{{ tools }}<｜tool▁calls▁begin｜>```json", "deepseek_v3"),
        ("{{ tools }}<｜tool▁calls▁begin｜>", "deepseek_v31"),
        ("{{ tools }}<|channel|>", "gpt_oss"),
        ("{{ tools }}", "json"),
    ],
)
def test_detection(template: str, name: str) -> None:
    assert detect([template]) is FORMATS[name]


@pytest.mark.parametrize("template", [source("chujiezheng/zephyr.jinja"), ""])
def test_templates_without_tools(template: str) -> None:
    assert detect([template]) is None


def test_a_choice() -> None:
    assert choose("none", ["{{ tools }}"]) is None
    assert choose("auto", ["{{ tools }}"]) is FORMATS["json"]
    for name in NAMES[2:]:
        assert choose(name, []) is FORMATS[name]
    with pytest.raises(ConfigError, match="hermes"):
        choose("hermse", [])
