from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

import pytest

from penstock import settings
from penstock.config.option import option
from penstock.errors import ConfigError
from penstock.settings import Command, Settings, command, load


def write(folder: Path, text: str) -> Path:
    file = folder / "penstock.toml"
    file.write_text(text)
    return file


def test_a_later_source_wins_and_is_remembered(tmp_path: Path) -> None:
    file = write(tmp_path, "[server]\nport = 1\nhost = 'a'\n[engine]\nmax_num_seqs = 2\n")
    env = {"PENSTOCK_PORT": "3", "PENSTOCK_HOST": "b", "HOME": "/"}
    found = load({"port": "4"}, env, file)
    assert found.config.server.port == 4
    assert found.config.server.host == "b"
    assert found.config.engine.max_num_seqs == 2
    assert found.config.engine.block_size is None
    assert found.sources["server.port"] == "the flag --port"
    assert found.sources["server.host"] == "the environment variable PENSTOCK_HOST"
    assert found.sources["engine.max_num_seqs"] == f"max_num_seqs in [engine] of {file}"
    assert found.sources["engine.block_size"] == "default"
    assert found.changes()[0].startswith("max_num_seqs = 2  (max_num_seqs in [engine]")


def test_the_environment_may_name_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "[server]\nport = 1\n")
    assert load({}, {"PENSTOCK_CONFIG": str(file)}).config.server.port == 1


def test_keys_are_not_shown() -> None:
    assert load({"api_key": ["hush"]}, {}).changes() == ["api_key = …  (the flag --api-key)"]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("PORT", "8001", 8001),
        ("REQUEST_TIMEOUT_S", "1.5", 1.5),
        ("REQUEST_TIMEOUT_S", "2", 2.0),
        ("MAX_BODY_BYTES", "65536", 65536),
        ("MAX_BODY_BYTES", "64KiB", 65536),
        ("MAX_BODY_BYTES", "1.5 MB", 1500000),
        ("MAX_BODY_BYTES", "1G", 10**9),
        ("API_KEY", "a, b", ("a", "b")),
        ("HOST", "::1", "::1"),
    ],
)
def test_texts_are_read(name: str, text: str, value: Any) -> None:
    read = getattr(load({}, {f"PENSTOCK_{name}": text}).config.server, name.lower())
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize("word", ["0", "false", "No", "off"])
def test_words_for_off(word: str) -> None:
    env = {"PENSTOCK_ENABLE_PREFIX_CACHING": word}
    assert load({}, env).config.engine.enable_prefix_caching is False


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("PORT", "many"),
        ("PORT", ""),
        ("PORT", "1.5"),
        ("MAX_BODY_BYTES", "64KKiB"),
        ("MAX_BODY_BYTES", "infinity"),
        ("MAX_BODY_BYTES", "GB"),
        ("REQUEST_TIMEOUT_S", "soon"),
        ("ENABLE_PREFIX_CACHING", "perhaps"),
    ],
)
def test_a_text_of_the_wrong_kind_names_flag_source_and_cure(name: str, text: str) -> None:
    with pytest.raises(ConfigError) as error:
        load({}, {f"PENSTOCK_{name}": text})
    assert "--" + name.lower().replace("_", "-") in error.value.message
    assert f"PENSTOCK_{name}" in error.value.message
    assert error.value.cure.startswith("Give ")


@pytest.mark.parametrize(
    ("toml", "cause"),
    [
        ("[server]\nport = '80 80'", "port in [server]"),
        ("[server]\nport = true", "--port is True"),
        ("[server]\nport = 1.0", "--port is 1.0"),
        ("[server]\nhost = 5", "--host is 5"),
        ("[server]\nprot = 1", "Did you mean port?"),
        ("[server]\nseed = 1", "It belongs in [model]."),
        ("[sevrer]\nport = 1", "Did you mean [server]?"),
        ("port = 1", "has 'port' at its top"),
        ("[server", "is not TOML"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, toml: str, cause: str) -> None:
    file = write(tmp_path, toml)
    with pytest.raises(ConfigError) as error:
        load({}, {}, file)
    assert cause in str(error.value)
    assert error.value.cure


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load({}, {}, tmp_path / "none.toml")


def test_an_unknown_variable_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="Did you mean PENSTOCK_MAX_NUM_SEQS"):
        load({}, {"PENSTOCK_MAX_NUM_SEQ": "1"})


def test_an_unknown_flag_is_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean port"):
        load({"prot": 1}, {})


def test_a_failed_check_names_the_source() -> None:
    with pytest.raises(ConfigError, match="by the environment variable PENSTOCK_DTYPE"):
        load({}, {"PENSTOCK_DTYPE": "float8"})


# Flags


@dataclass(frozen=True, slots=True)
class Own:
    url: str = option(MISSING, "Where")
    levels: tuple[int, ...] = option((1, 2), "Which")
    mode: str = option("a", "How", choices=("a", "b"), short="-m")


seen: list[Any] = []


@command("model", "server", own=Own)
def both(settings: Settings, own: Own) -> int:
    """Take everything."""
    seen[:] = [settings, own]
    return 7


@command("model")
def one(settings: Settings) -> None:
    """Take the model's flags."""
    seen[:] = [settings]


def run(*argv: str) -> int:
    here = "tests.test_settings"
    commands = (
        Command(("both",), f"{here}:both", "Take everything"),
        Command(("group", "one"), f"{here}:one", "Take the model's flags"),
    )
    return settings.call(settings.application("tool", "A tool.", "1", commands), argv)


def test_flags_become_settings_and_own_options() -> None:
    argv = ("both", "folder", "--port=9", "--api-key", "x", "--api-key", "y", "--url", "u")
    assert run(*argv, "--levels", "3,4", "--levels", "5", "-m", "b") == 7
    found, own = seen
    assert found.config.model.model == "folder"
    assert found.config.server.port == 9
    assert found.config.server.api_key == ("x", "y")
    assert found.sources["server.host"] == "default"
    assert own == Own("u", (3, 4, 5), "b")


def test_a_command_in_a_group() -> None:
    assert run("group", "one", "--model", "x", "--seed", "-3") == 0
    assert seen[0].config.model.seed == -3


def test_a_config_file_by_flag(tmp_path: Path) -> None:
    file = write(tmp_path, "[model]\nmodel = 'm'\n[server]\nport = 5\n")
    run("group", "one", "--config", str(file))
    assert seen[0].config.model.model == "m"
    assert seen[0].config.server.port == 5


@pytest.mark.parametrize(
    ("argv", "cause"),
    [
        (("both",), "--url"),
        (("both", "--url", "u", "--prot", "1"), "--port"),
        (("both", "--url", "u", "--mode", "c"), "Use one of a, b"),
        (("both", "--url", "u", "--levels", "3,x"), "--levels is 'x'"),
        (("both", "--url", "u", "--port", "x"), "--port is 'x': that is not a whole number"),
        (("both", "--url", "u", "--port", "70000"), "no such port"),
        (("group", "one", "--port", "1"), "--port"),
        (("group", "one", "a", "b"), "b"),
        (("bot",), "both"),
    ],
)
def test_wrong_flags_are_refused(argv: tuple[str, ...], cause: str) -> None:
    with pytest.raises(ConfigError) as error:
        run(*argv)
    assert cause in str(error.value)


def test_help_shows_defaults_and_units() -> None:
    commands = (Command(("both",), "tests.test_settings:both", "Take everything"),)
    app = settings.application("tool", "A tool.", "1", commands)
    text = settings.help_text(app, ("both",))
    assert "Port to listen on; 0 for any free one [default: 8000]" in text
    assert "[requests; default: 4 x max_num_seqs]" in text
    assert "--max-num-seqs" not in text


def test_flags_that_are_not_given_pass_pydantic(capsys: pytest.CaptureFixture[str]) -> None:
    """The CLI library checks arguments by pydantic where that is loaded, as it is once the server
    is imported: a flag left away, None, was then refused as no string."""
    import pydantic

    assert pydantic.VERSION
    assert run("both", "--url", "u") == 7
    assert seen[1] == Own("u")
