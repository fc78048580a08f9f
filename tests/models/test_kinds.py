from __future__ import annotations

from typing import Any

import pytest

from penstock.errors import UnsupportedError
from penstock.models.config_json import ConfigJson
from penstock.models.kinds import check_kind


@pytest.mark.parametrize(
    ("name", "fields", "why"),
    [
        ("Gemma3ForConditionalGeneration", {"vision_config": {}, "text_config": {}}, "images"),
        ("Qwen2AudioForConditionalGeneration", {"audio_config": {}}, "sound"),
        ("T5ForConditionalGeneration", {"is_encoder_decoder": True}, "encoder"),
        ("LlamaModel", {}, "embeddings"),
        ("Qwen3Model", {}, "embeddings"),
        ("Qwen2ForSequenceClassification", {}, "classifies texts"),
        ("BertForMaskedLM", {}, "fills gaps"),
    ],
)
def test_refuses_with_the_reason(name: str, fields: dict[str, Any], why: str) -> None:
    with pytest.raises(UnsupportedError, match=why):
        check_kind(ConfigJson(fields), name)


@pytest.mark.parametrize("name", ["LlamaForCausalLM", "GPT2LMHeadModel"])
def test_lets_language_models_through(name: str) -> None:
    check_kind(ConfigJson({"is_encoder_decoder": False}), name)
