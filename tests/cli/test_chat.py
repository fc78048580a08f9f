from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from io import StringIO
from typing import Any

from rich.console import Console

from penstock.cli import main
from penstock.cli.chat import ChatOptions, converse
from penstock.errors import UnavailableError

Message = dict[str, str]


class Parrot:
    """Answers with what it heard; fails when told to."""

    name = "parrot"

    def __init__(self) -> None:
        self.heard: list[list[Message]] = []
        self.sampling: list[dict[str, Any]] = []

    async def reply(
        self, messages: list[Message], sampling: dict[str, Any]
    ) -> AsyncGenerator[str, None]:
        self.heard.append(messages)
        self.sampling.append(sampling)
        word = messages[-1]["content"]
        if word == "fail":
            raise UnavailableError("Not now.")
        yield "[bold]"
        yield f"{word}!"

    async def close(self) -> None: ...


def talk(*lines: str, **options: Any) -> tuple[Parrot, str]:
    parrot, out = Parrot(), StringIO()
    with asyncio.Runner() as runner:
        console = Console(file=out, width=80)
        converse(parrot, ChatOptions(**options), iter(lines), console, runner)
    return parrot, out.getvalue()


def roles(messages: list[Message]) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in messages]


def test_turns_make_a_conversation() -> None:
    parrot, out = talk("a", "", "b")
    assert roles(parrot.heard[1]) == [("user", "a"), ("assistant", "[bold]a!"), ("user", "b")]
    assert out == "[bold]a!\n[bold]b!\n"


def test_reset_keeps_the_system_message_alone() -> None:
    parrot, _ = talk("a", "/reset", "b", system="Be brief.")
    assert roles(parrot.heard[1]) == [("system", "Be brief."), ("user", "b")]


def test_exit_ends() -> None:
    parrot, _ = talk("a", "/exit", "b")
    assert len(parrot.heard) == 1


def test_an_error_ends_its_turn_alone() -> None:
    parrot, out = talk("fail", "a")
    assert roles(parrot.heard[1]) == [("user", "a")]
    assert "error: Not now." in out


def test_only_what_was_given_is_sent() -> None:
    assert talk("a")[0].sampling == [{}]
    parrot, _ = talk("a", temperature=0.0, max_tokens=5)
    assert parrot.sampling == [{"temperature": 0.0, "max_tokens": 5}]


def test_flags_that_a_server_would_not_see_are_refused(capsys: Any) -> None:
    assert main(["chat", "--url", "http://127.0.0.1:1", "--dtype", "float32"]) == 2
    assert "--dtype has no effect on the server at --url" in capsys.readouterr().err


def test_no_server(capsys: Any) -> None:
    assert main(["chat", "--url", "http://127.0.0.1:1"]) == 1
    assert capsys.readouterr().err.startswith("error: No server answers at http://127.0.0.1:1")
