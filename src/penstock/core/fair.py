"""Fair queueing between tenants: who is served next, and what it costs them.

Each tenant has a counter of the tokens that it was served, divided by its weight; of the tenants
that wait, the one with the least goes first. This is deficit round robin (Shreedhar, Varghese 1995)
with a quantum of nothing, as the virtual token counter of Sheng et al. (2024): shares need no
rounds, and nobody saves up a claim by staying away.

A prompt is charged when it gets a slot, tokens from the cache at a fraction, an output when it
ends. So the counters of tenants that wait all the time differ by at most what their requests under
way and one more may cost.
"""

from __future__ import annotations

from collections.abc import Iterable

Share = tuple[bool, str]
"""(whether it is background work, the tenant's name)"""


class FairShares:
    """cached_cost: what a prompt token from the cache counts, in tokens."""

    def __init__(self, cached_cost: float = 0.25) -> None:
        self._cached_cost = cached_cost
        self._served: dict[Share, float] = {}
        self._latest = {False: 0.0, True: 0.0}
        """counter of the last that was served, of background work and of other"""

    def served(self, share: Share) -> float:
        return self._served.get(share, 0.0)

    def comes(self, share: Share, waiting: Iterable[Share]) -> None:
        """It begins to wait, beside these others: from now on as if it had been there before."""
        least = min((self.served(other) for other in waiting), default=self._latest[share[0]])
        self._served[share] = max(self.served(share), least)

    def charge_prompt(self, share: Share, weight: float, tokens: int, cached: int) -> None:
        """A prompt of so many tokens got a slot; so many of them came from the cache."""
        self._latest[share[0]] = max(self._latest[share[0]], self.served(share))
        self._charge(share, weight, tokens - cached + self._cached_cost * cached)

    def charge_output(self, share: Share, weight: float, tokens: int) -> None:
        self._charge(share, weight, tokens)

    def _charge(self, share: Share, weight: float, cost: float) -> None:
        self._served[share] = self.served(share) + cost / weight
