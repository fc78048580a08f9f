"""`penstock chat`"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from penstock.cli.talk import Local, Message, Partner, Remote
from penstock.config.option import option
from penstock.errors import ConfigError, PenstockError
from penstock.settings import Settings, command

HINT = "/reset forgets the conversation, /exit or Ctrl-D ends, Ctrl-C cuts an answer short"


@dataclass(frozen=True, slots=True)
class ChatOptions:
    url: str | None = option(
        None,
        "Server to talk to: http://host:port, with or without /v1",
        automatic="none, the model is loaded into this process",
    )
    api_key: str | None = option(None, "Key to send to the server", automatic="none")
    system: str | None = option(None, "System message to begin with", automatic="none")
    temperature: float | None = option(
        None, "Sampling temperature; 0 is greedy", automatic="the model's"
    )
    max_tokens: int | None = option(
        None, "Longest answer", unit="tokens", automatic="what the context leaves"
    )

    @property
    def sampling(self) -> dict[str, Any]:
        """The fields that were given, by their names in the API."""
        given = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        return {name: value for name, value in given.items() if value is not None}


@command("model", "engine", own=ChatOptions)
def chat(settings: Settings, options: ChatOptions) -> None:
    """Talk to a model in the terminal.

    Without arguments: the embedded demo model, loaded into this process. Lines that are piped in
    are turns of one conversation.
    """
    console = Console()
    with asyncio.Runner() as runner:
        partner = runner.run(_partner(settings, options))
        try:
            converse(partner, options, _lines(console, partner.name), console, runner)
        finally:
            runner.run(partner.close())


async def _partner(settings: Settings, options: ChatOptions) -> Partner:
    model = settings.config.model.model
    if options.url is None:
        return await Local.start(settings.config)
    flags = [name for name, source in settings.sources.items() if source.startswith("the flag")]
    named = "model.model" in flags
    for name in flags:
        if name != "model.model":
            flag = settings.sources[name].removeprefix("the flag ")
            cause = f"{flag} has no effect on the server at --url."
            raise ConfigError(cause, cure="Give it to `penstock serve`.")
    return await Remote.start(options.url, options.api_key, model if named else None)


def _lines(console: Console, name: str) -> Iterator[str]:
    """What the person types, or what is piped in."""
    if not sys.stdin.isatty():
        yield from (line.rstrip("\n") for line in sys.stdin)
        return
    console.print(f"Talking to {name}. {HINT}.", style="dim", markup=False, highlight=False)
    while True:
        try:
            yield console.input("[bold]> [/bold]")
        except (EOFError, KeyboardInterrupt):
            console.print()
            return


def converse(
    partner: Partner,
    options: ChatOptions,
    lines: Iterator[str],
    console: Console,
    runner: asyncio.Runner,
) -> None:
    """One turn a line, until the lines end. An error ends its turn, not the conversation."""
    start: list[Message] = []
    if options.system is not None:
        start = [{"role": "system", "content": options.system}]
    messages = list(start)
    for line in lines:
        if line.strip() == "/exit":
            return
        if line.strip() == "/reset":
            messages = list(start)
        elif line.strip():
            asked: Message = {"role": "user", "content": line}
            try:
                text = runner.run(answer(partner, [*messages, asked], options, console))
                messages += [asked, {"role": "assistant", "content": text}]
            except KeyboardInterrupt:
                console.print(
                    "\n(cut short and forgotten)", style="dim", markup=False, highlight=False
                )
            except PenstockError as error:
                console.print(f"\nerror: {error}", style="red", markup=False, highlight=False)


async def answer(
    partner: Partner, messages: list[Message], options: ChatOptions, console: Console
) -> str:
    """Print the answer as it comes; its text."""
    began = time.perf_counter()
    first_s = 0.0
    text = ""
    async for piece in partner.reply(messages, options.sampling):
        if piece and not text:
            first_s = time.perf_counter() - began
        text += piece
        console.print(piece, end="", markup=False, highlight=False, soft_wrap=True)
    console.print()
    if console.is_terminal:
        whole_s = time.perf_counter() - began
        console.print(
            f"first text after {first_s:.2f} s, all after {whole_s:.2f} s",
            style="dim",
            markup=False,
            highlight=False,
        )
    return text
