"""How much one key may ask for: requests and tokens a minute, and requests at once.

Buckets fill continuously. A request is let in while there is anything in both; its tokens are
charged when they are known, so that a bucket may go into debt, which later requests wait for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from penstock.errors import RateLimitError
from penstock.web.tenants import Tenant

MINUTE_S = 60.0


class Bucket:
    """`per_minute` of something, at most as much at once. All times in seconds."""

    def __init__(self, per_minute: float, now: float) -> None:
        self.per_minute = per_minute
        self._level = per_minute
        self._at = now

    def level(self, now: float) -> float:
        """What is there; negative: a debt."""
        filled = (now - self._at) * self.per_minute / MINUTE_S
        return min(self.per_minute, self._level + filled)

    def take(self, amount: float, now: float) -> None:
        self._level, self._at = self.level(now) - amount, now

    def wait_s(self, amount: float, now: float) -> float:
        """Until so much is there."""
        return max(0.0, amount - self.level(now)) * MINUTE_S / self.per_minute


class Account:
    """What one key has used of its limits."""

    def __init__(self, tenant: Tenant, now: Callable[[], float]) -> None:
        self.tenant = tenant
        self._now = now
        limits = {
            "requests": tenant.requests_per_minute,
            "tokens": tenant.tokens_per_minute,
        }
        self._buckets = {name: Bucket(most, now()) for name, most in limits.items() if most}
        self._running = 0
        self._usual_s = 1.0
        """how long its requests take, of late"""

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Hold a place while inside. Raises RateLimitError."""
        began = self._now()
        for name, bucket in self._buckets.items():
            wait_s = bucket.wait_s(1.0, began)
            if wait_s > 0:
                raise self._refusal(f"{bucket.per_minute:g} {name} a minute", wait_s)
        most = self.tenant.max_concurrency
        if most is not None and self._running >= most:
            raise self._refusal(f"{most} requests at once", self._usual_s / most)
        self.charge("requests", 1)
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            self._usual_s += 0.2 * (self._now() - began - self._usual_s)

    def charge(self, name: str, amount: int) -> None:
        """`requests` or `tokens`."""
        if bucket := self._buckets.get(name):
            bucket.take(amount, self._now())

    def headers(self) -> dict[str, str]:
        """OpenAI's: what the limits are, what is left, and when all of it is there again."""
        found, now = {}, self._now()
        for name, bucket in self._buckets.items():
            found[f"x-ratelimit-limit-{name}"] = f"{bucket.per_minute:g}"
            found[f"x-ratelimit-remaining-{name}"] = str(max(0, int(bucket.level(now))))
            found[f"x-ratelimit-reset-{name}"] = f"{bucket.wait_s(bucket.per_minute, now):.3f}s"
        return found

    def _refusal(self, limit: str, wait_s: float) -> RateLimitError:
        return RateLimitError(
            f"The key {self.tenant.name!r} may have {limit}.",
            cure="Retry after the time in Retry-After, or ask for a higher limit.",
            retry_after_s=wait_s,
        )
