from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from penstock.bench.http import HttpClient
from penstock.errors import ConfigError
from tests.bench.fake_server import Body, FakeServer, Reply


def echo(path: str, body: Body) -> Reply:
    return 200, {"path": path, "body": body}


async def slow(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        await asyncio.sleep(0.02)
        yield piece


async def test_connections_are_kept_and_reused() -> None:
    async with FakeServer(echo) as server:
        client = HttpClient(f"{server.url}/v1/")
        for _ in range(3):
            response = await client.post("/v1/x", b"{}")
        assert (await client.get("/v1/models")).ok
        assert bytes(response.body) == b'{"path": "/v1/x", "body": {}}'
        assert len(server.writers) == 1
        await client.close()


async def test_the_pool_grows_with_the_requests_in_flight() -> None:
    async with FakeServer(lambda path, body: (200, slow([b"x"]))) as server:
        client = HttpClient(server.url)
        await client.open(3)
        await asyncio.gather(*(client.post("/", b"{}") for _ in range(4)))
        assert len(server.writers) == 4
        await client.close()


async def test_each_piece_is_noted_when_it_arrives() -> None:
    seen: list[tuple[float, bytes]] = []
    arrived = asyncio.Event()

    async def one_after_the_other() -> AsyncIterator[bytes]:
        for piece in (b"a", b"b", b"c"):
            await asyncio.sleep(0.02)
            yield piece
            await arrived.wait()
            arrived.clear()

    def sink(at: float, piece: bytes) -> None:
        seen.append((at, piece))
        arrived.set()

    async with FakeServer(lambda path, body: (200, one_after_the_other())) as server:
        client = HttpClient(server.url)
        response = await client.post("/", b"{}", sink)
        await client.close()
    times = [response.sent_s, *(at for at, _ in seen)]
    assert [piece for _, piece in seen] == [b"a", b"b", b"c"]
    assert all(later - sooner > 0.015 for sooner, later in pairwise(times))
    assert response.body == b""


async def test_a_refusal_goes_to_the_body_not_to_the_sink() -> None:
    async with FakeServer(lambda path, body: (400, {"error": "no"})) as server:
        client = HttpClient(server.url)
        seen: list[bytes] = []
        response = await client.post("/", b"{}", lambda at, piece: seen.append(piece))
        assert (response.status, bytes(response.body), seen) == (400, b'{"error": "no"}', [])
        await client.close()


async def test_a_server_that_closes_after_each_reply_is_served_too() -> None:
    async with FakeServer(echo) as server:
        server.close_after_reply = True
        client = HttpClient(server.url)
        for _ in range(5):
            assert (await client.post("/", b"{}")).ok
        assert len(server.writers) == 5
        await client.close()


async def test_a_body_without_length_ends_with_its_connection() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        client = HttpClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        assert bytes((await client.get("/")).body) == b"all of it"
        await client.close()


@pytest.mark.parametrize(
    "text", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut", b"SSH-2"]
)
async def test_a_broken_response_is_a_connection_error(text: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(text)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        client = HttpClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(ConnectionError):
            await client.get("/")
        await client.close()


async def test_a_silent_server_is_a_timeout() -> None:
    async with FakeServer(lambda path, body: (200, slow([b"x"] * 100))) as server:
        client = HttpClient(server.url, timeout_s=0.1)
        with pytest.raises(TimeoutError):
            await client.post("/", b"{}")
        await client.close()


async def test_errors_of_the_sink_reach_the_caller() -> None:
    def broken(at: float, piece: bytes) -> None:
        raise ValueError("sink")

    async with FakeServer(lambda path, body: (200, slow([b"x"]))) as server:
        client = HttpClient(server.url)
        with pytest.raises(ValueError, match="sink"):
            await client.post("/", b"{}", broken)
        await client.close()


@pytest.mark.parametrize("url", ["ftp://host", "http://", "file:///x"])
def test_what_is_no_server_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="no server URL"):
        HttpClient(url)
