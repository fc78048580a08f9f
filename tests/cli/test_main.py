"""The program as a whole: exit codes, error lines, top-level help."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import penstock
from penstock.cli import COMMANDS, main


def run(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {name: text for name, text in os.environ.items() if not name.startswith("PENSTOCK_")}
    return subprocess.run(
        [sys.executable, "-m", "penstock.cli", *argv],
        env=env | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(item.words[0] in text for item in COMMANDS)


def test_no_argument_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "Commands" in capsys.readouterr().out


def test_a_group_alone_is_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench"]) == 0
    assert "Measure any OpenAI-style server" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == penstock.__version__


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["sevre"], "Did you mean"),
        (["serve", "--prot", "1"], "Did you mean --port"),
        (["serve", "--port", "99999"], "error: --port is 99999: no such port. Use 0"),
        (["serve", "--config", "none.toml"], "none.toml cannot be read"),
        (["bench", "serve", "--url", "x y", "--concurrency", "0"], "--concurrency"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    argv: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, captured = main(argv), capsys.readouterr()
    assert code == 2
    assert line in captured.err
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1


def test_a_process_fails_without_a_traceback() -> None:
    done = run("serve", PENSTOCK_PORT="x")
    assert done.returncode == 2
    assert done.stderr == (
        "error: --port is 'x', set by the environment variable PENSTOCK_PORT: that is not a whole"
        " number. Give a whole number.\n"
    )


def test_debugging_shows_the_traceback() -> None:
    done = run("serve", "--port", "x", PENSTOCK_DEBUG="1")
    assert done.returncode != 0
    assert "Traceback" in done.stderr
