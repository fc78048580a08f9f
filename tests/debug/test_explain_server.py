"""A real server that logs: every reply explained to its last byte, and what a kill leaves."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.debug.doctor import examine
from penstock.debug.explain import explain
from penstock.observe.reader import Log, read
from tests.server.process import Server, serving, wait, write_checkpoint

FLAGS = ("--num-threads", "1", "--kv-cache-memory-bytes", "2MiB", "--api-key", "secret")
HEADERS = {"Authorization": "Bearer secret"}


async def ask_all(url: str, count: int, **fields: Any) -> list[int]:
    async with httpx.AsyncClient(base_url=url, timeout=120, headers=HEADERS) as client:

        async def one(number: int) -> int:
            chat = {"messages": [{"role": "user", "content": f"Hello {number}"}]}
            stream = {"stream": number % 2 == 0}
            body = {"max_tokens": 8, "user": f"u{number}", **stream, **fields}
            if number % 3:
                reply = await client.post("/v1/chat/completions", json={**chat, **body})
            else:
                prompts = {"prompt": ["Once", "upon a time"]}
                reply = await client.post("/v1/completions", json={**prompts, **body})
            return reply.status_code

        return await asyncio.gather(*(one(number) for number in range(count)))


def ended(folder: Path, count: int) -> Log:
    def all_there() -> bool:
        return len(read(folder).requests) >= count

    wait(all_there, 30)
    return read(folder)


@pytest.mark.slow
def test_replies_are_explained_and_a_kill_is_survived(tmp_path: Path) -> None:
    model, folder = write_checkpoint(tmp_path / "model"), tmp_path / "logs"
    flags = (*FLAGS, "--log-dir", str(folder), "--canary-interval-s", "1")
    with serving(model, tmp_path / "first", *flags) as server:
        assert set(asyncio.run(ask_all(server.url, 30))) == {200}
        log = ended(folder, 40)
        assert len(log.requests) == 40, "ten of thirty have two prompts"
        for record in log.requests:
            found = explain(log, record)
            assert found.accounted > 0.98, found.spans
            assert (record.sent or 0.0) >= (record.ended or 0.0) > (record.parsed or 0.0) > 0.0
            assert record.key
            assert record.session.startswith("u") if record.session else False
        assert {record.endpoint for record in log.requests} == {"chat", "completions"}
        wait(lambda: b"canary_runs_total" in metrics(server), 30)
        assert examine(log) == []
        killed_in_flight(server, folder)
    with serving(model, tmp_path / "second", *flags):
        wait(lambda: any(not stop.clean for stop in read(folder).stops.values()), 30)
    log = read(folder)
    assert len(log.lost) == 3
    assert set(log.begins) == {lost.id for _, lost in log.lost}
    assert {finding.fault for finding in examine(log)} == {"requests-without-end"}
    assert log.faults.torn == 0


def metrics(server: Server) -> bytes:
    return httpx.get(f"{server.url}/metrics").content


def killed_in_flight(server: Server, folder: Path) -> None:
    """kill -9 while three requests run."""

    async def run() -> None:
        asking = asyncio.gather(
            *(
                ask_all(server.url, 1, prompt="Once", max_tokens=2000, stream=True)
                for _ in range(3)
            ),
            return_exceptions=True,
        )
        for _ in range(600):
            await asyncio.sleep(0.05)
            if len(read(folder, {"begin", "request"}).begins) == 3:
                break
        server.signal(signal.SIGKILL)
        server.wait_exit()
        await asking

    asyncio.run(run())
    for path in folder.glob("*.jsonl"):
        whole, _, torn = path.read_bytes().rpartition(b"\n")
        assert all(line.endswith(b"}") for line in whole.splitlines())
        assert not torn.endswith(b"}")
