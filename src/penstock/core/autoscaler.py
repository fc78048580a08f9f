"""How many replicas there should be, from how much work there is. Pure: the caller starts and
stops them.

    wanted = ceil(open requests / target concurrency) + buffer, within [min, max]

More are started once more were wanted all through the scale-up window; some are stopped once fewer
were wanted all through the scale-down window, and then only down to the most that was wanted in it
(the stabilisation of Kubernetes' horizontal autoscaler). So between a start and the next stop
there lies a whole scale-down window: it cannot flap.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from penstock.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Scaling:
    """Raises ConfigError when the numbers contradict each other."""

    min_replicas: int = 1
    max_replicas: int = 1
    buffer: int = 0
    """replicas beyond what the load needs, for what comes while another one starts"""
    target_concurrency: float = 8.0
    """open requests a replica"""
    up_window_s: float = 0.0
    down_window_s: float = 60.0

    def __post_init__(self) -> None:
        rules = (
            ("min_replicas", 0 <= self.min_replicas <= self.max_replicas, "0 to max_replicas"),
            ("max_replicas", self.max_replicas >= 1, "at least 1"),
            ("buffer", self.buffer >= 0, "0 or more"),
            ("target_concurrency", self.target_concurrency > 0, "positive"),
            ("up_window_s", self.up_window_s >= 0, "0 or more"),
            ("down_window_s", self.down_window_s >= 0, "0 or more"),
        )
        for name, ok, rule in rules:
            if not ok:
                cause = f"{name} is {getattr(self, name)}: it must be {rule}."
                raise ConfigError(cause, cure="Correct it.", param=name)


class Autoscaler:
    """One fleet's. Its time is that of its calls."""

    def __init__(self, scaling: Scaling) -> None:
        self.scaling = scaling
        self.replicas = scaling.min_replicas
        """as decided; the fleet may still be on its way there"""
        self._low = _Extreme(scaling.up_window_s, lambda new, old: new <= old)
        self._high = _Extreme(scaling.down_window_s, lambda new, old: new >= old)

    def decide(self, now: float, open_requests: int) -> int:
        """Replicas that there should be. open_requests: waiting and running, of the whole fleet."""
        scaling = self.scaling
        wanted = math.ceil(open_requests / scaling.target_concurrency) + scaling.buffer
        wanted = max(scaling.min_replicas, min(scaling.max_replicas, wanted))
        lasting = self._low.note(now, wanted)
        recent = self._high.note(now, wanted)
        if lasting > self.replicas:
            self.replicas = lasting
        elif recent < self.replicas:
            self.replicas = recent
        return self.replicas


class _Extreme:
    """The least (or greatest) value that held at any time of a sliding window (monotonic queue).

    A value holds until the next one is noted; until a whole window was seen, the first counts from
    the beginning of time.
    """

    def __init__(self, window_s: float, beats: Callable[[int, int], bool]) -> None:
        self._window_s = window_s
        self._beats = beats
        self._queue: deque[tuple[float, int]] = deque()
        """(until when it held, value), the extreme one first; the last holds still"""

    def note(self, now: float, value: int) -> int:
        queue = self._queue
        if queue:
            queue[-1] = (now, queue[-1][1])
        while queue and (queue[0][0] <= now - self._window_s):
            queue.popleft()
        while queue and self._beats(value, queue[-1][1]):
            queue.pop()
        queue.append((now, value))
        return queue[0][1]
