"""Few candidates out of many engines, so that rating them costs the same in a fleet of any size.

In front stand engines that hold the most of the prompt and the session's last one; the rest is an
even sample, which the router's load scorer turns into a choice of the least loaded of a few
(Mitzenmacher 2001: two choices already do nearly all that all of them would).
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.core.affinity import PrefixIndex, Sessions
from penstock.core.router import Ask

HOLDERS = 3
_GOLDEN = 0x9E3779B1


def shortlist(
    index: PrefixIndex,
    sessions: Sessions,
    ask: Ask,
    engines: Sequence[int],
    accepting: int,
    count: int,
    turn: int,
) -> list[int]:
    """At most `count` of `engines` (all of them when there are no more), each once.

    accepting: the same engines as bits. turn: a number that differs from call to call; equal ones
    give equal lists.
    """
    if len(engines) <= count:
        return list(engines)
    found: dict[int, None] = {}
    holders = index.deepest(ask.hashes, accepting)
    for place in range(HOLDERS):
        if not holders:
            break
        # From a place on that moves, so that many holders share the work.
        start = (turn * HOLDERS + place) * _GOLDEN % holders.bit_length()
        above = holders >> start
        bit = (above & -above) << start if above else holders & -holders
        found[bit.bit_length() - 1] = None
        holders &= ~bit
    last = sessions.get(ask.session) if ask.session else None
    if last is not None and accepting >> last & 1:
        found[last] = None
    step = turn * count
    while len(found) < count:
        found[engines[step * _GOLDEN % len(engines)]] = None
        step += 1
    return list(found)
