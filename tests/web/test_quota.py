from __future__ import annotations

import pytest

from penstock.core.clock import ManualClock
from penstock.errors import RateLimitError
from penstock.web.quota import Account, Bucket
from penstock.web.tenants import Tenant


def account(clock: ManualClock, **limits: int) -> Account:
    return Account(Tenant("ann", b"", **limits), clock.now)  # type: ignore[arg-type]


def test_a_bucket_fills_by_the_minute_and_no_further() -> None:
    bucket = Bucket(60, 0.0)
    bucket.take(60, 0.0)
    assert bucket.level(10.0) == 10
    assert bucket.wait_s(15, 10.0) == 5
    assert bucket.level(1000.0) == 60
    bucket.take(90, 1000.0)
    assert bucket.wait_s(1, 1000.0) == 31, "a debt is waited for"


def test_after_the_told_time_and_not_before_it_passes() -> None:
    clock = ManualClock()
    mine = account(clock, requests_per_minute=2)
    for _ in range(2):
        with mine.admit():
            pass
    with pytest.raises(RateLimitError, match="2 requests a minute") as caught, mine.admit():
        pass
    wait_s = caught.value.retry_after_s
    assert wait_s == pytest.approx(30.0)
    clock.advance(wait_s - 0.1)
    with pytest.raises(RateLimitError), mine.admit():
        pass
    clock.advance(0.2)
    with mine.admit():
        pass


def test_tokens_are_charged_when_they_are_known() -> None:
    clock = ManualClock()
    mine = account(clock, tokens_per_minute=600)
    with mine.admit():
        mine.charge("tokens", 660)
    assert mine.headers()["x-ratelimit-remaining-tokens"] == "0"
    with pytest.raises(RateLimitError, match="600 tokens") as caught, mine.admit():
        pass
    assert caught.value.retry_after_s == pytest.approx(6.1)
    clock.advance(6.2)
    with mine.admit():
        pass


def test_so_many_at_once() -> None:
    mine = account(ManualClock(), max_concurrency=1)
    with mine.admit(), pytest.raises(RateLimitError, match="1 requests at once"), mine.admit():
        pass
    with mine.admit():
        pass


def test_headers_tell_what_is_left() -> None:
    clock = ManualClock()
    mine = account(clock, requests_per_minute=60, tokens_per_minute=600)
    with mine.admit():
        mine.charge("tokens", 60)
    assert mine.headers() == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1.000s",
        "x-ratelimit-limit-tokens": "600",
        "x-ratelimit-remaining-tokens": "540",
        "x-ratelimit-reset-tokens": "6.000s",
    }
    assert account(clock).headers() == {}
