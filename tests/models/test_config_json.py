from __future__ import annotations

import pytest

from penstock.errors import CheckpointError, UnsupportedError
from penstock.models.config_json import ConfigJson


def test_reads_with_types_and_defaults() -> None:
    config = ConfigJson({"a": 3, "b": 0.5, "c": True, "d": None})
    assert config.size("a") == 3
    assert config.number("a") == 3.0
    assert config.number("b") == 0.5
    assert config.flag("c", False)
    assert config.take("d", str, "default") == "default"
    assert config.take("missing", int, 7) == 7
    config.finish()


@pytest.mark.parametrize(
    ("raw", "read"),
    [
        ({}, lambda c: c.size("n")),
        ({"n": None}, lambda c: c.size("n")),
        ({"n": "3"}, lambda c: c.size("n")),
        ({"n": True}, lambda c: c.size("n")),
        ({"n": 3.5}, lambda c: c.size("n")),
        ({"n": 0}, lambda c: c.size("n")),
        ({"n": -4}, lambda c: c.size("n")),
        ({"n": [1]}, lambda c: c.number("n")),
        ({"n": -0.5}, lambda c: c.number("n")),
        ({"n": float("nan")}, lambda c: c.number("n")),
        ({"n": 1}, lambda c: c.flag("n", False)),
    ],
)
def test_missing_and_wrong_values_are_refused_by_name(raw, read) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(CheckpointError, match=r"here.*'n'"):
        read(ConfigJson(raw, "here"))


def test_a_field_that_nobody_read_is_refused_by_name() -> None:
    config = ConfigJson({"a": 3, "attention_sinks": 4})
    config.size("a")
    with pytest.raises(UnsupportedError, match="attention_sinks") as caught:
        config.finish()
    assert caught.value.param == "attention_sinks"


def test_harmless_and_empty_fields_are_not() -> None:
    ConfigJson(
        {"torch_dtype": "bfloat16", "_x": 1, "unsloth_fixed": True, "rope_interleaved": False}
    ).finish()
