from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock.config import Config, EngineConfig, ModelConfig
from penstock.errors import ConfigError
from penstock.evals.evaluate import evaluate
from penstock.evals.options import EvalOptions
from penstock.evals.report import Report
from tests.evals.readers import checkpoint
from tests.vocabularies import TEXTS, byte_level_json, sentencepiece_json, write_folder

TEXT = "\n".join(TEXTS)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = checkpoint(tmp_path_factory.mktemp("evals"), vocab_size=512)
    return write_folder(path, byte_level_json())


def run(
    model: Path,
    text: Path,
    *,
    quantization: str = "none",
    kv_cache_dtype: str = "auto",
    **options: Any,
) -> Report:
    text.write_text(TEXT, encoding="utf-8")
    config = Config(
        ModelConfig(model=str(model), quantization=quantization),
        EngineConfig(num_threads=1, kv_cache_dtype=kv_cache_dtype),
    )
    return evaluate(config.check(), EvalOptions(text=str(text), **{"context": 32, **options}))


def test_the_plain_model_is_the_reference(model: Path, tmp_path: Path) -> None:
    report = run(model, tmp_path / "text", max_kl=0.0, min_agreement=1.0)
    assert report.failures == []
    assert report.total.kl_mean == 0
    assert report.total.reference_perplexity == report.total.candidate_perplexity > 1
    assert report.reference_storage == report.candidate_storage


def test_another_dtype_is_compared_with_the_wide_one(model: Path, tmp_path: Path) -> None:
    report = run(model, tmp_path / "text", reference_dtype="bfloat16", max_kl=0.0)
    assert report.failures
    assert 0 < report.total.kl_mean < 0.01


def test_an_int8_cache_is_part_of_what_is_judged(model: Path, tmp_path: Path) -> None:
    report = run(model, tmp_path / "text", kv_cache_dtype="int8", max_kl=0.01)
    assert not report.failures
    assert report.total.kl_mean > 0


def test_a_quantized_model_beside_its_original(model: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    text = tmp_path / "text"
    report = run(model, text, quantization="int4", max_kl=1e-6)
    assert report.failures
    assert report.total.kl_mean > 0
    assert sum(part.tokens for part in report.buckets.values()) == report.total.tokens
    assert set(report.buckets) == {"1-15", "16-63"}
    assert report.candidate_storage["model.layers.*.self_attn.q_proj.weight"].bytes > 0
    setting = report.setting
    assert setting["config"]["model"]["quantization"] == "int4"
    assert len(setting["config_hash"]) == 64
    assert setting["machine"]["date"]
    config = Config(ModelConfig(model=str(model)), EngineConfig(num_threads=1))
    options = EvalOptions(text=str(text), context=32, max_tokens=40)
    evaluate(config, options, lambda scored, of: told.append((scored, of)))
    assert told == [(31, 38), (38, 38)]


def test_with_a_stride_each_token_has_context(model: Path, tmp_path: Path) -> None:
    report = run(model, tmp_path / "text", stride=8, quantization="int8")
    alone = run(model, tmp_path / "text", quantization="int8")
    assert report.total.tokens > alone.total.tokens
    assert report.buckets["1-15"].tokens == 15
    assert report.total.reference_bits_per_byte == pytest.approx(
        alone.total.reference_bits_per_byte, rel=0.3
    )


def test_windows_begin_with_bos_where_texts_do(tmp_path: Path) -> None:
    folder = write_folder(
        checkpoint(tmp_path, vocab_size=512),
        sentencepiece_json(),
        tokenizer_config={"bos_token": "<s>"},
    )
    text = tmp_path / "text"
    report = run(folder, text, max_tokens=31)
    assert report.total.tokens == 31
    assert list(report.buckets) == ["1-15", "16-63"]


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"context": 1}, "context"),
        ({"context": 513}, "context"),
        ({"stride": 0}, "stride"),
        ({"max_tokens": 1}, "text"),
    ],
)
def test_sizes_that_cannot_work_are_refused(
    model: Path, tmp_path: Path, options: dict[str, Any], param: str
) -> None:
    with pytest.raises(ConfigError) as error:
        run(model, tmp_path / "text", **options)
    assert error.value.param == param


def test_a_text_that_is_not_there(model: Path, tmp_path: Path) -> None:
    config = Config(ModelConfig(model=str(model)))
    for text in (tmp_path / "none", tmp_path):
        with pytest.raises(ConfigError, match="--text"):
            evaluate(config, EvalOptions(text=str(text)))
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    with pytest.raises(ConfigError, match="UTF-8"):
        evaluate(config, EvalOptions(text=str(tmp_path / "latin")))
