"""A server process from bind to exit: it listens at once, loads, serves, drains, ends.

    bind -> listen (/live 200, /ready 503) -> load -> serve (/ready 200) -> signal -> drain -> exit

The first SIGTERM or SIGINT drains: new requests get 503, running ones finish within
`drain_timeout_s`. The second one ends at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from penstock.config import ServerConfig
from penstock.errors import ConfigError
from penstock.web.limits import Door

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 75
"""Longer than the pools of common clients keep idle connections, so that the client closes first
and no request meets a connection that is just being closed."""


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free one. Raises ConfigError when that fails."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, proto)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen(2048)
        except OSError:
            sock.close()
            raise
    except OSError as error:
        cures = {
            errno.EADDRINUSE: "Stop the program that has it, or take another --port (0: any free).",
            errno.EACCES: "Take a --port above 1023, which needs no privilege.",
        }
        raise ConfigError(
            f"Cannot listen on {host}:{port}: {error.strerror}.",
            cure=cures.get(error.errno or 0, "Set --host to 127.0.0.1, or 0.0.0.0 for all."),
            param="port" if error.errno in cures else "host",
        ) from None
    return sock


def url_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Uvicorn(uvicorn.Server):
    """Uvicorn that leaves signals to us: its own handlers would cut running streams."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Stop:
    """What signals ask for: first a drain, then an end at once."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.forced = asyncio.Event()

    def on_signal(self, number: int) -> None:
        name = signal.Signals(number).name
        if self.asked.is_set():
            log.warning("%s again: ending at once", name)
            self.forced.set()
        else:
            log.info("%s: finishing the running requests (once more to end at once)", name)
            self.asked.set()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT)
        for number in numbers:
            loop.add_signal_handler(number, self.on_signal, number)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)


async def run(
    app: ASGIApp,
    config: ServerConfig,
    door: Door,
    load: Callable[[], Awaitable[None]],
    abort_all: Callable[[], None],
    close: Callable[[], Awaitable[None]],
    sock: socket.socket,
) -> bool:
    """Serve until a signal ends it; True when every request could finish.

    load: brings the model up and says so; what it raises ends the server and is raised here.
    abort_all: ends what still runs when the drain takes too long. close: ends the engine.
    """
    stop = Stop()
    server = _Uvicorn(_uvicorn_config(app))
    with stop.listening():
        serving = asyncio.create_task(server.serve(sockets=[sock]))
        loading = asyncio.ensure_future(load())
        stopping = asyncio.create_task(stop.asked.wait())
        try:
            await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if loading.done():
                loading.result()
                await stopping
            return await _drain(door, config.drain_timeout_s, stop, abort_all)
        finally:
            server.should_exit = True
            server.force_exit = stop.forced.is_set()
            for task in (loading, stopping):
                task.cancel()
            await asyncio.gather(loading, stopping, return_exceptions=True)
            await serving
            await close()


def _uvicorn_config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=5,
    )


async def _drain(door: Door, timeout_s: float, stop: Stop, abort_all: Callable[[], None]) -> bool:
    """Shut the door and wait for those inside, but not past the timeout or a second signal."""
    door.drain()
    started = time.monotonic()
    empty = asyncio.create_task(door.wait_empty(timeout_s))
    forced = asyncio.create_task(stop.forced.wait())
    await asyncio.wait({empty, forced}, return_when=asyncio.FIRST_COMPLETED)
    clean = empty.done() and empty.result()
    empty.cancel()
    forced.cancel()
    if clean:
        log.info("drained in %.1f s", time.monotonic() - started)
    else:
        log.warning("%d choices did not finish and are aborted", door.live)
        abort_all()
        await door.wait_empty(1.0)
    return clean
