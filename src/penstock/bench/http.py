"""A small HTTP/1.1 client on asyncio and httptools that notes when each piece of a body arrived.

A load generator has to read the clock where bytes come in: queues, decoders and task switches of
a general client would be measured as latency of the server.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import httptools

from penstock.errors import ConfigError

NONE: Mapping[str, str] = {}
Sink = Callable[[float, bytes], None]
"""Called with the arrival time (perf_counter seconds) and each piece of a 2xx body."""


@dataclass(slots=True)
class Response:
    """`sent_s`: when the request was handed to the socket. `body` is empty if a sink took it."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    sent_s: float = 0.0

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


class Connection(asyncio.Protocol):
    """One keep-alive connection; one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.served = 0
        """responses read so far"""
        self._arrived = 0.0
        self._parser: Any = None
        self._response = Response()
        self._sink: Sink | None = None
        self._done: asyncio.Future[Response] | None = None

    @property
    def responding(self) -> bool:
        """Whether anything of the latest response has arrived."""
        return self._response.status != 0

    @property
    def usable(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    async def request(self, payload: bytes, sink: Sink | None) -> Response:
        """Send the bytes, return when the whole response is in. Raises ConnectionError."""
        if self.transport is None or self.transport.is_closing():
            raise ConnectionResetError("connection closed")
        self._parser = httptools.HttpResponseParser(self)
        self._sink = sink
        self._done = asyncio.get_running_loop().create_future()
        self._response = Response(sent_s=perf_counter())
        self.transport.write(payload)
        try:
            return await self._done
        except BaseException:
            self.transport.abort()
            raise

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._arrived = perf_counter()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__  # what the sink raised: belongs to the one who awaits
            self._fail(cause if isinstance(cause, Exception) else error)
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(f"not HTTP: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        framed = {"content-length", "transfer-encoding"} & self._response.headers.keys()
        if self._response.status and not framed and exc is None:
            self.on_message_complete()  # a body without a length ends with its connection
        self._fail(exc or ConnectionResetError("connection closed before the response ended"))

    # --- httptools callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        self._response.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._response.status = self._parser.get_status_code()

    def on_body(self, piece: bytes) -> None:
        if self._sink is not None and self._response.ok:
            self._sink(self._arrived, piece)
        else:
            self._response.body += piece

    def on_message_complete(self) -> None:
        self.served += 1
        if self.transport is not None and not self._parser.should_keep_alive():
            self.transport.close()
        if self._done is not None and not self._done.done():
            self._done.set_result(self._response)

    def _fail(self, error: Exception) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)


class HttpClient:
    """Requests to one server over a pool of connections that grows with the requests in flight.

    `url` may end in `/v1` or not; paths are given from the root of the API (`/v1/models`).
    """

    def __init__(self, url: str, api_key: str | None = None, timeout_s: float = 600.0) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url!r} is no server URL.", cure="Write http://host:port.")
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._prefix = parts.path.rstrip("/").removesuffix("/v1")
        self._head = f"Host: {parts.netloc.rpartition('@')[2]}\r\nAccept-Encoding: identity\r\n"
        if api_key:
            self._head += f"Authorization: Bearer {api_key}\r\n"
        self._timeout_s = timeout_s
        self._idle: list[Connection] = []

    async def get(self, path: str) -> Response:
        """Raises ConnectionError, OSError, TimeoutError."""
        return await self._send(self._encode("GET", path, b""), None)

    async def post(
        self, path: str, body: bytes, sink: Sink | None = None, headers: Mapping[str, str] = NONE
    ) -> Response:
        """Send a JSON body. A 2xx body goes to `sink`, piece by piece, when there is one.

        Raises ConnectionError, OSError, TimeoutError, and whatever the sink raises.
        """
        return await self._send(self._encode("POST", path, body, headers), sink)

    async def open(self, count: int) -> None:
        """Have `count` connections ready, so that no request pays for its handshake."""
        missing = count - len(self._idle)
        self._idle += await asyncio.gather(*(self._connect() for _ in range(missing)))

    async def close(self) -> None:
        for connection in self._idle:
            if connection.transport is not None:
                connection.transport.close()
        self._idle.clear()
        await asyncio.sleep(0)  # lets the loop run the closing callbacks

    async def _send(self, payload: bytes, sink: Sink | None) -> Response:
        async with asyncio.timeout(self._timeout_s):
            while True:
                connection = self._take() or await self._connect()
                try:
                    response = await connection.request(payload, sink)
                except ConnectionError:
                    # The server may close an idle connection just as it is used again.
                    if connection.served and not connection.responding:
                        continue
                    raise
                if connection.usable:
                    self._idle.append(connection)
                return response

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return None

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            Connection, self._host, self._port, ssl=self._tls
        )
        return connection

    def _encode(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str] = NONE
    ) -> bytes:
        head = f"{method} {self._prefix}{path} HTTP/1.1\r\n{self._head}"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        return f"{head}\r\n".encode("latin-1") + body
