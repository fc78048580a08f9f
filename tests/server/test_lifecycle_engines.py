"""A server over two engine processes: one of them dies, then the server itself."""

from __future__ import annotations

import signal
import socket
import threading
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.server.process import START_S, Server, wait

FLAGS = ["--kv-cache-memory-bytes", "2MiB", "--num-threads", "1", "--data-parallel-size", "2"]
LONG: dict[str, Any] = {"prompt": "Once", "max_tokens": 1900, "ignore_eos": True, "stream": True}


def engines_of(server: Server) -> list[psutil.Process]:
    children = psutil.Process(server.process.pid).children()
    return [child for child in children if "penstock.engine.process" in child.cmdline()]


class Stream(threading.Thread):
    """Reads a long stream; tells how it ended."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.began = threading.Event()
        self.lines: list[str] = []
        self.cut = False
        self.start()
        assert self.began.wait(30.0)

    def run(self) -> None:
        try:
            with httpx.stream("POST", f"{self.url}/v1/completions", json=LONG, timeout=60) as reply:
                for line in reply.iter_lines():
                    self.lines.append(line)
                    self.began.set()
        except httpx.TransportError:
            self.cut = True


@pytest.mark.slow
def test_an_engine_dies_and_then_the_server(checkpoint: Path, tmp_path: Path) -> None:
    """With an engine left the server stays ready and loses nothing. Killed itself, it takes its
    engines along, and the next one serves at the same port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(checkpoint, tmp_path / "first", *FLAGS, port=port)
    try:
        server.wait_ready()
        streams = [Stream(server.url) for _ in range(4)]
        first, _ = engines_of(server)
        first.kill()
        wait(lambda: httpx.get(f"{server.url}/health").json()["status"] == "degraded", 10.0)
        assert "SIGKILL" in httpx.get(f"{server.url}/health").json()["engines"][0]
        assert httpx.get(f"{server.url}/ready").status_code == 200
        for stream in streams:
            stream.join(60.0)
            assert "data: [DONE]" in stream.lines
        wait(lambda: httpx.get(f"{server.url}/health").json()["status"] == "healthy", START_S)
        assert server.metric("penstock:engine_restarts_total") == 1

        cut = Stream(server.url)
        engines = engines_of(server)
        assert len(engines) == 2
        server.signal(signal.SIGKILL)
        _, alive = psutil.wait_procs(engines, timeout=5)
        assert alive == []
        cut.join(10.0)
        assert cut.cut
        server.wait_exit()
        server = Server(checkpoint, tmp_path / "second", *FLAGS, port=port)
        server.wait_ready()
        body = {"prompt": "Once", "max_tokens": 3}
        assert httpx.post(f"{server.url}/v1/completions", json=body, timeout=30).status_code == 200
    finally:
        server.signal()
        server.wait_exit()
