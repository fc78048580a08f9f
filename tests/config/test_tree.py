from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from penstock.config import Config, EngineConfig, ModelConfig, ServerConfig
from penstock.config.tree import SECTIONS, all_options
from penstock.errors import ConfigError


def test_defaults_are_sound() -> None:
    assert Config().check() == Config()


def test_names_are_unique_so_that_flags_can_be_flat() -> None:
    names = Counter(option.name for option in all_options())
    assert [name for name, count in names.items() if count > 1] == []
    assert "config" not in names


def test_every_option_explains_itself() -> None:
    """A help text each; what None or () means is said; units stand in names of times and sizes."""
    for option in all_options():
        assert option.help, option.path
        assert not option.help.endswith("."), option.path
        if option.default is None or option.default == ():
            assert option.automatic, option.path
        assert option.name.endswith("_s") == (option.unit == "seconds"), option.path
        assert option.name.endswith("_bytes") == (option.unit == "bytes"), option.path


def test_sections_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Config().server.port = 1  # type: ignore[misc]


BAD: list[tuple[str, str, Any]] = [
    ("log", "log_sample", 1.5),
    ("log", "log_redact", ("prompts",)),
    ("log", "log_segment_bytes", 10),
    ("log", "log_max_bytes", 5000),
    ("log", "log_queue", 0),
    ("log", "canary_interval_s", -1.0),
    ("log", "log_fsync", "always"),
    ("model", "model", " "),
    ("model", "dtype", "float8"),
    ("model", "max_model_len", 0),
    ("model", "seed", 2**64),
    ("engine", "max_num_seqs", 0),
    ("engine", "data_parallel_size", 0),
    ("engine", "data_parallel_size", 65),
    ("engine", "max_num_batched_tokens", 63),
    ("engine", "scheduling_policy", "lifo"),
    ("engine", "priority_ageing_s", 0.0),
    ("engine", "scheduler_depth", 3),
    ("engine", "block_size", 0),
    ("engine", "kv_cache_memory_bytes", -1),
    ("engine", "attention_backend", "flush"),
    ("engine", "num_threads", 0),
    ("server", "port", 65536),
    ("server", "port", -1),
    ("server", "max_waiting", -1),
    ("server", "max_body_bytes", 1),
    ("server", "drain_timeout_s", float("nan")),
    ("server", "request_timeout_s", 0.0),
    ("server", "health_stuck_after_s", 0.0),
    ("server", "api_key", ("",)),
    ("server", "log_level", "loud"),
]


@pytest.mark.parametrize(("section", "name", "value"), BAD)
def test_bad_values_name_flag_and_cure(section: str, name: str, value: Any) -> None:
    config = Config(**{section: SECTIONS[section](**{name: value})})
    with pytest.raises(ConfigError) as error:
        config.check()
    assert "--" + name.replace("_", "-") in error.value.message
    assert error.value.param == name
    assert error.value.cure


def test_a_step_must_hold_every_running_request() -> None:
    Config(engine=EngineConfig(max_num_seqs=8, max_num_batched_tokens=8)).check()
    with pytest.raises(ConfigError, match="--max-num-seqs"):
        Config(engine=EngineConfig(max_num_seqs=8, max_num_batched_tokens=7)).check()


def test_keys_do_not_show_in_errors() -> None:
    config = Config(server=ServerConfig(api_key=("secret", "")))
    with pytest.raises(ConfigError) as error:
        config.check()
    assert "secret" not in str(error.value)


def test_max_waiting_follows_the_running_requests() -> None:
    engine = EngineConfig(max_num_seqs=5)
    assert Config(engine=engine).max_waiting == 20
    assert Config(engine=engine, server=ServerConfig(max_waiting=0)).max_waiting == 0


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (ModelConfig(), ("demo",)),
        (ModelConfig(model="org/name"), ("org/name", "name")),
        (ModelConfig(model="folder/of/name/"), ("folder/of/name/", "name")),
        (ModelConfig(model="org/name", served_model_name=("a", "b")), ("a", "b")),
    ],
)
def test_served_names(model: ModelConfig, names: tuple[str, ...]) -> None:
    assert Config(model=model).served_names == names
