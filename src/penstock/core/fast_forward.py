"""Many steady decode steps at once: where the scheduler would only repeat itself.

A scheduler is steady while the same requests decode one token each, nobody enters, ends or loses
blocks. `fast_forward` then leaves it as k pairs of `schedule` and `apply` would, block ids, names
and plans under way included; only the `TokensOut` are left to the caller, who knows them. This is
a part of the scheduler in a file of its own: it reads and writes what is the scheduler's alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from penstock.core.events import WaitReason
from penstock.core.plan import UNKNOWN, StepPlan
from penstock.core.request import Request
from penstock.core.scheduler import Scheduler
from penstock.core.slo_scheduler import SloScheduler


def steady_steps(scheduler: Scheduler) -> int:
    """How many pairs of `schedule` and `apply` from here on are sure to be alike, if no request
    comes, is aborted, writes a stop id, or has its deadline; 0 when the next one may not be."""
    decoding, limits = scheduler._decoding, scheduler.limits
    if not decoding or scheduler._prefilling or scheduler.num_held or limits.stages > 1:
        return 0
    if len(decoding) > limits.max_num_batched_tokens:
        return 0
    if isinstance(scheduler, SloScheduler) and not scheduler.decodes_all:
        return 0
    under_way = scheduler.num_in_flight
    if not scheduler.may_schedule or scheduler._num_background or not _all_alike(scheduler):
        return 0
    if scheduler._waiting.stood != _standing(scheduler):
        return 0
    steps = min(r.limit - len(r.tokens) for r in decoding) - max(1, under_way)
    return _within_blocks(scheduler, steps) if steps > under_way else 0


def next_deadline_s(scheduler: Scheduler) -> float:
    """The earliest deadline of a request; no pair may be scheduled from then on."""
    return scheduler._deadlines[0][0] if scheduler._deadlines else math.inf


def decoding(scheduler: Scheduler) -> list[Request]:
    """The requests that decode, in queue order; not to be changed."""
    return scheduler._decoding


def plans_under_way(scheduler: Scheduler) -> list[StepPlan]:
    """Plans that are not applied yet, the oldest first."""
    return [plan for plan, _ in scheduler._in_flight]


def _all_alike(scheduler: Scheduler) -> bool:
    """Whether every plan under way decodes just those requests that decode now."""
    decoding, under_way = scheduler._decoding, scheduler.num_in_flight
    return all(r.in_flight == under_way == r.pending for r in decoding) and all(
        members == decoding and sum(plan.counts) == len(members) and not plan.entries
        for plan, members in scheduler._in_flight
    )


def _standing(scheduler: Scheduler) -> tuple[WaitReason | None, str]:
    """Why no waiting request can enter while those that run just go on, and the first of them;
    what was said last is never equal to this where one can."""
    head, tables = scheduler._waiting.first(), scheduler._tables
    if head is None:
        return None, ""
    if not scheduler._free_slots:
        return WaitReason.SLOTS, head.id
    if len(scheduler._decoding) >= scheduler.limits.max_num_batched_tokens:
        return WaitReason.TOKENS, head.id
    if head.in_flight or head.submission.adapter is not None or scheduler._shared.leading:
        return WaitReason.RESULT, ""
    hits = tables.match(head)
    # Its room can only shrink, unless one that runs writes the very block that it lacks, or a
    # window leaves blocks behind.
    grows = any(group.window for group in tables.groups) or any(
        _writes(r, head, hits) for r in scheduler._decoding
    )
    blocked = not grows and not scheduler._room_for(head, hits)
    return (WaitReason.BLOCKS, head.id) if blocked else (WaitReason.RESULT, "")


def _writes(request: Request, head: Request, hits: int) -> bool:
    """Whether `request` may go on to fill block `hits` of `head`."""
    if not head.reads_cache or hits >= len(head.hashes) or request.commits > hits:
        return False
    if hits == 0:
        return request.key == head.key
    return request.hashes[hits - 1 : hits] == head.hashes[hits - 1 : hits]


def _within_blocks(scheduler: Scheduler, steps: int) -> int:
    """The most steps, up to `steps`, for which no one can run out of blocks."""
    pool, groups = scheduler.pool, len(scheduler._tables.groups)
    rooms = [r.capacity - r.computed for r in scheduler._decoding]

    def fits(count: int) -> bool:
        need = sum(max(0, -(-(count - room) // pool.block_size)) for room in rooms)
        return need * groups <= pool.num_available

    if fits(steps):
        return steps
    low, high = 0, steps
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low if low > scheduler.num_in_flight else 0


def fast_forward(scheduler: Scheduler, outputs: Sequence[Sequence[int]]) -> None:
    """Do k pairs of `schedule` and `apply`, for a k of at most `steady_steps(scheduler)` and more
    than the plans under way. outputs: for each request that decodes, in queue order, the k ids
    that it gets; none of them is one of its stop ids. The clock stands at the last `apply`."""
    rows, count = list(scheduler._decoding), len(outputs[0])
    under_way = scheduler.num_in_flight
    starts = [r.computed for r in rows]
    known = [len(r.tokens) for r in rows]
    plans = _plans(scheduler, rows, starts, count, under_way)
    first = count - under_way
    for pair, applies, row in _changes(scheduler, rows, starts, count, under_way):
        request = rows[row]
        if applies:
            done = len(request.tokens) - known[row]
            request.tokens.extend(outputs[row][done:pair])
            full = (starts[row] - under_way + pair + 1) // scheduler.pool.block_size
            scheduler._commit(request, full)
        else:
            request.computed = starts[row] + pair
            plan = plans[pair - first] if pair >= first else StepPlan(0)
            scheduler._grow(request, request.computed + 1, plan)
    for row, request in enumerate(rows):
        request.tokens.extend(outputs[row][len(request.tokens) - known[row] :])
        request.computed = starts[row] + count
    scheduler._step += count
    if under_way:
        scheduler._in_flight.clear()
        scheduler._in_flight.extend((plan, list(rows)) for plan in plans)


def _plans(
    scheduler: Scheduler, rows: list[Request], starts: list[int], count: int, under_way: int
) -> list[StepPlan]:
    """The plans that are under way afterwards, blocks still missing."""
    size = len(rows)
    return [
        StepPlan(
            scheduler._step + pair,
            slots=[r.slot for r in rows],
            starts=[start + pair for start in starts],
            counts=[1] * size,
            tokens=[UNKNOWN] * size,
            samples=[True] * size,
        )
        for pair in range(count - under_way, count)
    ]


def _changes(
    scheduler: Scheduler, rows: list[Request], starts: list[int], count: int, under_way: int
) -> list[tuple[int, bool, int]]:
    """What happens to blocks, in order: (pair, whether it is in its `apply`, row). A row grows in
    the `schedule` whose token finds no place, and commits in the `apply` that fills a block."""
    size = scheduler.pool.block_size
    changes: list[tuple[int, bool, int]] = []
    for row, request in enumerate(rows):
        begin = request.capacity - starts[row]
        changes += [(pair, False, row) for pair in range(begin, count, size)]
        if request.key:
            begin = (request.commits + 1) * size - (starts[row] - under_way) - 1
            changes += [(pair, True, row) for pair in range(begin, count, size)]
    changes.sort()
    return changes
