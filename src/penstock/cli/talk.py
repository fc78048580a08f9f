"""The other end of `penstock chat`: a model in this process, or a server behind a URL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, Protocol

from penstock.bench.http import HttpClient, Response
from penstock.bench.sse import SseParser
from penstock.config import Config
from penstock.errors import ConfigError, ModelNotFoundError, PenstockError, UnavailableError

if TYPE_CHECKING:
    from penstock.llm import AsyncLLM

Message = dict[str, str]


class Partner(Protocol):
    """Whoever answers."""

    name: str

    def reply(self, messages: list[Message], sampling: dict[str, Any]) -> AsyncGenerator[str, None]:
        """Pieces of the answer as they come; closing early aborts it. sampling: fields of the
        OpenAI API. Raises PenstockError."""
        ...

    async def close(self) -> None: ...


class Local:
    """A model in this process."""

    def __init__(self, llm: AsyncLLM, name: str) -> None:
        self.name = name
        self._llm = llm

    @classmethod
    async def start(cls, config: Config) -> Local:
        """Load the model. Raises ConfigError, CheckpointError …"""
        from penstock.llm.offline import start_in_process

        return cls(await start_in_process(config), config.served_names[0])

    async def reply(
        self, messages: list[Message], sampling: dict[str, Any]
    ) -> AsyncGenerator[str, None]:
        generation = await self._llm.chat(list(messages), self._llm.params(**sampling))
        try:
            async for delta in generation:
                yield delta.text
        finally:
            await generation.aclose()

    async def close(self) -> None:
        await self._llm.close()


class Remote:
    """A model behind an OpenAI-style API."""

    def __init__(self, client: HttpClient, name: str) -> None:
        self.name = name
        self._client = client

    @classmethod
    async def start(cls, url: str, api_key: str | None, model: str | None) -> Remote:
        """Find the server, and its first model if none is named. Raises UnavailableError, …"""
        client = HttpClient(url, api_key)
        try:
            response = await client.get("/v1/models")
        except OSError as error:
            cause = f"No server answers at {url} ({type(error).__name__}: {error})."
            raise UnavailableError(cause, cure="Start one, or correct --url.") from None
        if not response.ok:
            raise _refusal(response)
        names = [card["id"] for card in json.loads(response.body).get("data", [])]
        if model is not None and model not in names:
            cause = f"The server has no model {model!r}."
            raise ModelNotFoundError(cause, cure=f"It serves {', '.join(names)}.")
        if not names:
            raise ModelNotFoundError("The server lists no models.", cure="Look at its log.")
        return cls(client, model or names[0])

    async def reply(
        self, messages: list[Message], sampling: dict[str, Any]
    ) -> AsyncGenerator[str, None]:
        body = {"model": self.name, "messages": messages, "stream": True, **sampling}
        pieces: asyncio.Queue[bytes | None] = asyncio.Queue()

        async def send() -> Response:
            try:
                return await self._client.post(
                    "/v1/chat/completions",
                    json.dumps(body).encode(),
                    lambda _, piece: pieces.put_nowait(piece),
                )
            finally:
                pieces.put_nowait(None)

        parser = SseParser()
        sending = asyncio.create_task(send())
        try:
            while (piece := await pieces.get()) is not None:
                for event in parser.feed(piece):
                    yield _text(event)
            response = await sending
        except OSError as error:
            raise UnavailableError(f"The connection broke: {error}.", cure="Ask again.") from None
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        if not response.ok:
            raise _refusal(response)

    async def close(self) -> None:
        await self._client.close()


def _text(event: bytes) -> str:
    """The text in one event of a stream. Raises PenstockError if the event tells an error."""
    if event == b"[DONE]":
        return ""
    chunk = json.loads(event)
    if "error" in chunk:
        raise PenstockError(_message(chunk["error"]))
    return "".join(choice["delta"].get("content") or "" for choice in chunk.get("choices", ()))


def _refusal(response: Response) -> PenstockError:
    """The error that a server's answer describes."""
    try:
        message = _message(json.loads(response.body)["error"])
    except (ValueError, KeyError, TypeError):
        message = bytes(response.body[:200]).decode("utf-8", "replace")
    message = f"The server answers {response.status}: {message}"
    if response.status == 401:
        return ConfigError(message, cure="Give the key by --api-key.")
    return UnavailableError(message) if response.status in (429, 503) else PenstockError(message)


def _message(error: Any) -> str:
    return str(error["message"] if isinstance(error, dict) and "message" in error else error)
