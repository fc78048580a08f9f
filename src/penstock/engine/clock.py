"""The real clock: the host's monotonic one, equal in all its processes."""

from __future__ import annotations

import time


class MonotonicClock:
    def now(self) -> float:
        return time.monotonic()
