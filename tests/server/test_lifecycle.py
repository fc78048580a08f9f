from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from penstock.config import ServerConfig
from penstock.errors import CheckpointError, ConfigError
from penstock.server.lifecycle import bind, run, url_of
from penstock.web.limits import Door
from tests.server.process import START_S, Server, serving, wait

LONG: dict[str, Any] = {"prompt": "Once", "max_tokens": 1900, "ignore_eos": True, "stream": True}
FLAGS = ["--kv-cache-memory-bytes", "2MiB", "--num-threads", "1"]


def test_bind_takes_a_free_port() -> None:
    with bind("127.0.0.1", 0) as sock:
        assert url_of(sock) == f"http://127.0.0.1:{sock.getsockname()[1]}"


def test_a_port_in_use_is_said_with_the_cure() -> None:
    with bind("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"127.0.0.1:{port}: Address already in use.*--port"):
            bind("127.0.0.1", port)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1", ""])
def test_a_host_of_somebody_else(host: str) -> None:
    """192.0.2.1 is reserved for documentation: no machine has it."""
    with pytest.raises(ConfigError, match=f"Cannot listen on {host}:0.*--host"):
        bind(host, 0)


async def _app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


class Parts:
    """What `run` is handed; remembers what was called."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls: list[str] = []
        self.loaded = asyncio.Event()

    async def load(self) -> None:
        if self.error:
            raise self.error
        self.loaded.set()

    def abort_all(self) -> None:
        self.calls.append("abort")

    async def close(self) -> None:
        self.calls.append("close")

    def run(self, door: Door, drain_timeout_s: float = 5.0) -> asyncio.Task[bool]:
        sock = bind("127.0.0.1", 0)
        config = ServerConfig(drain_timeout_s=drain_timeout_s)
        ends = (self.abort_all, self.close)
        return asyncio.ensure_future(run(_app, config, door, self.load, *ends, sock))


async def test_what_keeps_the_model_from_loading_ends_the_server() -> None:
    parts = Parts(CheckpointError("It is truncated."))
    with pytest.raises(CheckpointError):
        await parts.run(Door(1))
    assert parts.calls == ["close"]


async def test_a_signal_ends_an_idle_server_at_once() -> None:
    parts = Parts()
    running = parts.run(Door(1))
    await parts.loaded.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(running, 5.0)
    assert parts.calls == ["close"]


@pytest.mark.parametrize("again", [False, True], ids=["drain timeout", "second signal"])
async def test_what_does_not_finish_is_aborted(again: bool) -> None:
    parts, door = Parts(), Door(1)
    with door.admit(1):
        running = parts.run(door, drain_timeout_s=60.0 if again else 0.1)
        await parts.loaded.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.05)
        assert door.draining
        assert parts.calls == []
        if again:
            os.kill(os.getpid(), signal.SIGINT)
        assert not await asyncio.wait_for(running, 10.0)
    assert parts.calls == ["abort", "close"]


class Reader(threading.Thread):
    """Reads a long stream in the background."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.began = threading.Event()
        self.lines: list[str] = []
        self.start()
        assert self.began.wait(30.0)

    def run(self) -> None:
        with httpx.stream("POST", f"{self.url}/v1/completions", json=LONG, timeout=60) as response:
            for line in response.iter_lines():
                if line:
                    self.lines.append(line.removeprefix("data: "))
                    self.began.set()

    @property
    def last(self) -> Any:
        """The last event before [DONE]."""
        self.join(60.0)
        assert self.lines[-1] == "[DONE]"
        return msgspec.json.decode(self.lines[-2])


def test_a_drain_finishes_what_runs(checkpoint: Path, tmp_path: Path) -> None:
    """SIGTERM during a stream: it ends as it would have, newcomers get 503, exit code 0. Before
    that the queue is full, as one request may run and none may wait. The engine pauses meanwhile,
    so that the stream surely lasts."""
    flags = [*FLAGS, "--max-num-seqs", "1", "--max-waiting", "0"]
    with serving(checkpoint, tmp_path / "output", *flags) as server:
        reader, engine = Reader(server.url), server.engine_pid()
        os.kill(engine, signal.SIGSTOP)
        refused = httpx.post(f"{server.url}/v1/completions", json={"prompt": "Once"})
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        server.signal()
        wait(lambda: httpx.get(f"{server.url}/ready").status_code == 503, 5.0)
        refused = httpx.post(f"{server.url}/v1/completions", json={"prompt": "Once"})
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "draining"
        assert httpx.get(f"{server.url}/live").status_code == 200
        os.kill(engine, signal.SIGCONT)
        assert reader.last["choices"][0]["finish_reason"] == "length"
        assert server.wait_exit() == 0
        assert "Traceback" not in server.output


def test_an_engine_that_hangs_and_dies(checkpoint: Path, tmp_path: Path) -> None:
    """Stopped in the middle of a stream it is unhealthy after the limit, and replaced; killed, it
    is replaced again. The stream goes on where it was and newcomers wait."""
    with serving(checkpoint, tmp_path / "output", *FLAGS, "--health-stuck-after-s", "1") as server:
        reader = Reader(server.url)
        engine = server.engine_pid()
        os.kill(engine, signal.SIGSTOP)
        health = f"{server.url}/health"
        wait(lambda: httpx.get(health).status_code == 503, 10.0)
        assert httpx.get(health).json()["error"]["code"] == "engine_stuck"
        late = httpx.post(f"{server.url}/v1/completions", json={"prompt": "Once"}, timeout=START_S)
        assert late.status_code == 200
        assert server.engine_pid() != engine
        os.kill(server.engine_pid(), signal.SIGKILL)
        wait(lambda: httpx.get(health).status_code == 503, 10.0)
        assert "restarting" in httpx.get(health).json()["error"]["message"]
        wait(lambda: httpx.get(health).status_code == 200, START_S)
        assert reader.last["choices"][0]["finish_reason"] == "length"
        assert server.metric("penstock:engine_restarts_total") == 2
        server.signal()
        assert server.wait_exit() == 0


def test_it_listens_while_the_model_loads(checkpoint: Path, tmp_path: Path) -> None:
    """Orchestrators probe from the first second; a signal in that time ends the start."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(checkpoint, tmp_path / "output", *FLAGS, port=port)
    url = f"http://127.0.0.1:{port}"

    def live() -> bool:
        assert server.process.poll() is None, server.output
        try:
            return httpx.get(f"{url}/live").status_code == 200
        except httpx.ConnectError:
            return False

    try:
        wait(live, START_S)
        for path in ("/ready", "/health"):
            response = httpx.get(f"{url}{path}")
            assert (response.status_code, "retry-after" in response.headers) == (503, True)
        early = httpx.post(f"{url}/v1/completions", json={"prompt": "Once"})
        assert early.json()["error"]["code"] == "unavailable"
        server.signal()
        assert server.wait_exit() == 0
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.wait_exit()
    assert "Serving at" not in server.output


def test_a_server_whose_port_is_taken(checkpoint: Path, tmp_path: Path) -> None:
    with bind("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
        server = Server(checkpoint, tmp_path / "output", *FLAGS, port=port)
        try:
            assert server.wait_exit(START_S) == 2
        except subprocess.TimeoutExpired:
            server.process.kill()
            raise
    assert server.output.splitlines()[-1].startswith(f"error: Cannot listen on 127.0.0.1:{port}")
