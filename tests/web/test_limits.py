from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import Request

from penstock.core.clock import ManualClock
from penstock.errors import BodyTooLargeError, DrainingError, InvalidFieldError, QueueFullError
from penstock.web.limits import Door, read_body


def test_the_door_holds_its_limit_and_opens_again() -> None:
    door = Door(3)
    with door.admit(2):
        with pytest.raises(QueueFullError) as caught, door.admit(2):
            pass
        assert caught.value.retry_after_s
        with door.admit(1):
            assert door.live == 3
    assert (door.live, door.refused) == (0, 2)
    with door.admit(3):
        pass


def test_a_request_that_never_fits_is_the_clients_fault() -> None:
    """Retrying it would never help, so it must not be a 429."""
    with pytest.raises(InvalidFieldError), Door(3).admit(4):
        pass


async def test_a_drain_lets_those_inside_finish() -> None:
    door = Door(3)
    with door.admit(1):
        door.drain()
        with pytest.raises(DrainingError), door.admit(1):
            pass
        assert not await door.wait_empty(0.01)
    assert await door.wait_empty(0.01)


async def test_waiting_for_an_empty_door_ends_when_the_last_leaves() -> None:
    door = Door(3)

    async def stay() -> None:
        with door.admit(1):
            await asyncio.sleep(0.02)

    staying = asyncio.create_task(stay())
    await asyncio.sleep(0)
    assert await door.wait_empty(5.0)
    await staying


def _request(chunks: list[bytes], length: str | None) -> tuple[Request, list[bytes]]:
    left = list(chunks)

    async def receive() -> Any:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    headers = [] if length is None else [(b"content-length", length.encode())]
    return Request({"type": "http", "headers": headers}, receive), left


async def test_a_body_within_the_limit_is_read_whole() -> None:
    request, _ = _request([b"ab", b"cd"], None)
    assert await read_body(request, 4) == b"abcd"


async def test_a_declared_excess_is_refused_unread() -> None:
    request, left = _request([b"abcde"], "5")
    with pytest.raises(BodyTooLargeError):
        await read_body(request, 4)
    assert left == [b"abcde"]


@pytest.mark.parametrize("length", [None, "2", "nonsense"])
async def test_an_undeclared_excess_is_refused_at_the_chunk_that_passes(length: str) -> None:
    request, left = _request([b"abc", b"de", b"fg"], length)
    with pytest.raises(BodyTooLargeError):
        await read_body(request, 4)
    assert left == [b"fg"]


def test_when_to_come_again_follows_from_how_fast_places_get_free() -> None:
    clock = ManualClock()
    door = Door(4, clock.now)
    inside = [door.admit(1) for _ in range(4)]
    for one in inside:
        one.__enter__()
    for one in inside[:3]:
        clock.advance(5.0)
        one.__exit__(None, None, None)
        inside.append(door.admit(1))
        inside[-1].__enter__()
    with pytest.raises(QueueFullError) as caught, door.admit(1):
        pass
    soon = caught.value.retry_after_s
    assert soon is not None
    assert 1.5 < soon < 5.0, "of late a place gets free every five seconds"
    with pytest.raises(QueueFullError) as more, door.admit(4):
        pass
    assert more.value.retry_after_s == pytest.approx(4 * soon)
