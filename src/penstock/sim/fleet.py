"""Replicas behind the production router, in virtual time: they start, fail, scale, and drain."""

from __future__ import annotations

import gc
import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache

from penstock.core.autoscaler import Autoscaler, Scaling
from penstock.core.events import CacheChanged
from penstock.core.request import Sampling, Submission
from penstock.core.router import Ask, EngineView, Router
from penstock.core.shortlist import shortlist
from penstock.report.records import RequestRecord
from penstock.report.stats import Histogram
from penstock.sim.engine import EngineSpec
from penstock.sim.kernel import ARRIVAL, Kernel
from penstock.sim.names import block_names
from penstock.sim.replica import Replica
from penstock.workload.definition import Fault, Overload
from penstock.workload.draws import mix
from penstock.workload.prefixes import Segment
from penstock.workload.sessions import TimedRequest

DETECTED_S = 5.0
"""How long an unreachable replica is waited for before its requests go elsewhere."""


@dataclass(frozen=True, slots=True)
class FleetSpec:
    """What is simulated."""

    engine: EngineSpec
    replicas: int = 1
    """ready at the begin"""
    scaling: Scaling | None = None
    """None: the number stays"""
    start_s: float = 0.0
    """from decision to ready"""
    intake_s: float = 0.0
    """from the client to the engine's queue"""
    max_waiting: int | None = None
    """requests that may queue at each replica; None: without end"""
    overload: Overload = field(default_factory=lambda: Overload("queue"))
    faults: tuple[Fault, ...] = ()
    candidates: int = 8
    """replicas that the router rates for a request"""
    last_due_s: float = math.inf
    """turns of a session that would be due later do not come"""
    tick_s: float = 1.0
    """between two decisions of the autoscaler"""
    concurrency: float = 8.0
    """open requests that a replica is meant for; utilisation is in shares of it"""
    forward: bool = True
    keep_gaps: bool = False
    seed: int = 0


class State(Enum):
    STARTING = 0
    READY = 1
    DRAINING = 2
    BROKEN = 3


@dataclass(slots=True, eq=False)
class Member:
    """A replica, or the place of one that is not there yet."""

    index: int
    since_s: float
    state: State = State.STARTING
    replica: Replica | None = None
    reachable: bool = True

    @property
    def open(self) -> int:
        return len(self.replica.live) if self.replica else 0


@dataclass(slots=True)
class Usage:
    """What was paid for and what of it was used."""

    paid_s: float = 0.0
    """replica seconds, starts included"""
    used_s: float = 0.0
    """replica seconds that the open requests needed"""
    busy_s: float = 0.0
    """replica seconds in which steps ran"""
    steps: int = 0
    most: int = 0
    """replicas at a time"""
    starts: int = 0
    reversals: int = 0
    """changes of the direction in which was scaled"""
    counts: list[tuple[float, int, int]] = field(default_factory=list)
    """(second, replicas paid for, open requests), once a tick"""

    @property
    def utilisation(self) -> float:
        return self.used_s / self.paid_s if self.paid_s else 0.0


class Fleet:
    def __init__(self, spec: FleetSpec, requests: Iterable[TimedRequest]) -> None:
        self.spec = spec
        self.kernel = Kernel()
        self.records: list[RequestRecord] = []
        """of requests that ended, in order of their ends"""
        self.gaps = Histogram()
        self.usage = Usage()
        self._router = Router(seed=spec.seed)
        self._scaler = Autoscaler(spec.scaling) if spec.scaling else None
        self._members: dict[int, Member] = {}
        self._ready: list[int] = []
        self._accepting = 0
        """the same as bits"""
        self._free: list[int] = []
        self._waiting: deque[tuple[RequestRecord, Submission]] = deque()
        self._requests: Iterator[TimedRequest] = iter(requests)
        self._open: dict[str, tuple[Submission, list[bytes]]] = {}
        self._ends: dict[int, float] = {}
        self._followers: dict[int, list[TimedRequest]] = {}
        self._turn = 0
        self._direction = 0
        self._last_tick_s = 0.0

    def run(self, until_s: float | None = None) -> list[RequestRecord]:
        """Until every request has ended, or to that time. Requests that are open then are no
        records."""
        for _ in range(self.spec.replicas):
            self._make_ready(self._new_member())
        for number, fault in enumerate(self.spec.faults):
            self.kernel.at(fault.at_s, self._break, (number, fault))
        self._feed()
        self.kernel.at(0.0, self._tick)
        collects = gc.isenabled()
        gc.disable()  # nothing is in cycles, and looking for them takes longer with each record
        try:
            self.kernel.run(until_s)
        finally:
            if collects:
                gc.enable()
        for member in list(self._members.values()):
            self._close_books(member)
        return self.records

    # Requests come

    def _feed(self, _: object = None) -> None:
        request = next(self._requests, None)
        if request is None:
            return
        self.kernel.at(max(request.at_s, self.kernel.now()), self._come, request, ARRIVAL)

    def _come(self, request: TimedRequest) -> None:
        self._feed()
        missing = next((p for p in request.parents if p not in self._ends), None)
        if missing is not None:
            self._followers.setdefault(missing, []).append(request)
        elif request.parents:
            due = max(self._ends[parent] for parent in request.parents) + request.wait_s
            self.kernel.at(max(due, self.kernel.now()), self._due, request, ARRIVAL)
        else:
            self._due(request)

    def _due(self, request: TimedRequest) -> None:
        now, spec = self.kernel.now(), self.spec
        if now > spec.last_due_s:
            return
        record = RequestRecord(
            str(request.id), now, request.input_tokens, wanted_tokens=request.output_tokens,
            session=request.session, turn=request.turn, slo_class=request.slo_class, sent_s=now,
        )  # fmt: skip
        names: list[bytes] = []
        if spec.engine.prefix_caching:
            text = (*request.prompt, Segment(request.answer, request.output_tokens))
            names = block_names(text, spec.engine.block_size)
        submission = Submission(
            record.id, [0] * request.input_tokens, _sampling(request.output_tokens),
            arrival_s=now, session=str(request.session), slo_class=request.slo_class,
            block_hashes=names,
        )  # fmt: skip
        if spec.intake_s:
            self.kernel.at(now + spec.intake_s, self._take_in, (record, submission), ARRIVAL)
        else:
            self._place(record, submission)

    def _take_in(self, given: tuple[RequestRecord, Submission]) -> None:
        self._place(*given)

    def _place(self, record: RequestRecord, submission: Submission) -> None:
        member = self._choose(submission)
        if member is not None and member.replica is not None:
            member.replica.submit(record, submission)
            return
        limit = 0.0 if self.spec.overload.policy == "shed" else self.spec.overload.queue_max_s
        if self._ready and limit == 0.0:
            self._refuse(record)
            return
        self._waiting.append((record, submission))
        if limit:
            self.kernel.at(self.kernel.now() + limit, self._give_up, record)

    def _refuse(self, record: RequestRecord) -> None:
        record.end_s, record.error = self.kernel.now(), "queue_full"
        self._ended(None, record)

    def _give_up(self, record: RequestRecord) -> None:
        for place, (waiting, _) in enumerate(self._waiting):
            if waiting is record:
                del self._waiting[place]
                self._refuse(record)
                return

    def _choose(self, submission: Submission) -> Member | None:
        """The router's pick among some of the replicas; noted as sent."""
        names = submission.block_hashes[: len(submission.prompt) // self.spec.engine.block_size]
        if len(self._members) == 1:
            only = next(iter(self._members.values()))
            return only if only.index in self._ready and self._has_room(only) else None
        ask = Ask(len(submission.prompt) + len(submission.output), names, submission.session)
        self._turn += 1
        few = shortlist(
            self._router.index, self._router.sessions, ask, self._ready, self._accepting,
            self.spec.candidates, self._turn,
        )  # fmt: skip
        now = self.kernel.now()
        views = [self._view(self._members[index], now) for index in few]
        decision = self._router.pick(ask, views, now)
        if decision is None:
            return None
        self._router.index.sent(decision.engine, names)
        self._open[submission.id] = submission, names
        return self._members[decision.engine]

    def _has_room(self, member: Member) -> bool:
        limit = self.spec.max_waiting
        return limit is None or member.open < self.spec.engine.limits.max_num_seqs + limit

    def _view(self, member: Member, now: float) -> EngineView:
        assert member.replica is not None
        return EngineView(
            member.index, now, member.open, member.replica.tokens_ahead,
            self.spec.engine.limits.max_num_seqs, self._has_room(member),
        )  # fmt: skip

    # Requests end

    def _ended(self, replica: Replica | None, record: RequestRecord) -> None:
        now = self.kernel.now()
        self.records.append(record)
        number = int(record.id)
        self._ends[number] = now
        if replica is not None and (found := self._open.pop(record.id, None)):
            self._router.index.settled(replica.index, found[1])
        for follower in self._followers.pop(number, ()):
            self._come_again(follower)
        if replica is None:
            return
        if self._waiting:
            self.kernel.at(now, self._place_waiting)
        member = self._members.get(replica.index)
        if member is not None and member.state is State.DRAINING and not member.open:
            self._remove(member)

    def _come_again(self, request: TimedRequest) -> None:
        """One more of its parents has been answered."""
        missing = next((p for p in request.parents if p not in self._ends), None)
        if missing is not None:
            self._followers.setdefault(missing, []).append(request)
            return
        due = max(self._ends[parent] for parent in request.parents) + request.wait_s
        self.kernel.at(max(due, self.kernel.now()), self._due, request, ARRIVAL)

    def _place_waiting(self, _: object = None) -> None:
        for _ in range(len(self._waiting)):
            record, submission = self._waiting[0]
            member = self._choose(submission)
            if member is None or member.replica is None:
                return
            self._waiting.popleft()
            member.replica.submit(record, submission)

    def _cache_changed(self, index: int, event: CacheChanged) -> None:
        self._router.index.stored(index, event.stored)
        self._router.index.removed(index, event.removed)

    # Replicas come and go

    def _new_member(self) -> Member:
        index = self._free.pop() if self._free else len(self._members)
        member = self._members[index] = Member(index, self.kernel.now())
        self.usage.most = max(self.usage.most, len(self._members))
        return member

    def _make_ready(self, member: Member) -> None:
        if self._members.get(member.index) is not member or member.state is State.READY:
            return
        several = self.spec.replicas > 1 or self._scaler is not None
        scheduler = self.spec.engine.scheduler(self.kernel, watched=several)
        member.replica = Replica(
            member.index, self.kernel, scheduler, self.spec.engine.costs, self._ended, self.gaps,
            self._cache_changed if several else None, self.spec.keep_gaps, self.spec.forward,
        )  # fmt: skip
        member.state = State.READY
        self._open_door(member)

    def _open_door(self, member: Member) -> None:
        member.state = State.READY
        self._ready.append(member.index)
        self._accepting |= 1 << member.index
        if self._waiting:
            self.kernel.at(self.kernel.now(), self._place_waiting)

    def _close_door(self, member: Member) -> None:
        if member.index in self._ready:
            self._ready.remove(member.index)
        self._accepting &= ~(1 << member.index)

    def _remove(self, member: Member) -> None:
        self._close_door(member)
        self._close_books(member)
        self._router.forget(member.index)
        del self._members[member.index]
        self._free.append(member.index)

    def _close_books(self, member: Member) -> None:
        self.usage.paid_s += self.kernel.now() - member.since_s
        member.since_s = self.kernel.now()
        if member.replica is not None:
            self.usage.busy_s += member.replica.busy_s
            self.usage.steps += member.replica.steps
            member.replica.busy_s, member.replica.steps = 0.0, 0

    # Faults

    def _break(self, given: tuple[int, Fault]) -> None:
        number, fault = given
        ready = [index for index in self._ready if self._members[index].reachable]
        for place in range(min(fault.replicas, len(ready))):
            index = ready.pop(mix(self.spec.seed + 977 * number + place) % len(ready))
            member = self._members[index]
            if fault.kind == "crash":
                self._lose((member, fault.duration_s))
            elif fault.kind == "slow" and member.replica is not None:
                member.replica.slow_down(fault.factor)
                until = self.kernel.now() + fault.duration_s
                self.kernel.at(until, self._recover, member.replica)
            elif fault.kind == "unreachable" and member.replica is not None:
                member.reachable = False
                member.replica.freeze()
                when = self.kernel.now() + DETECTED_S
                self.kernel.at(when, self._lose, (member, max(0.0, fault.duration_s - DETECTED_S)))

    def _recover(self, replica: Replica) -> None:
        replica.slow_down(1.0)

    def _lose(self, given: tuple[Member, float]) -> None:
        """Its requests go on elsewhere from where they were; it is back, without its cache, after
        that time."""
        member, gone_s = given
        if self._members.get(member.index) is not member or member.replica is None:
            return
        lost = member.replica.stop()
        drained = member.state is State.DRAINING
        self._close_door(member)
        self._close_books(member)
        self._router.forget(member.index)
        member.replica, member.state, member.reachable = None, State.BROKEN, True
        for record, submission in lost:
            self._open.pop(record.id, None)
            self._place(record, submission)
        if drained:
            self._remove(member)
        else:
            self.kernel.at(self.kernel.now() + gone_s, self._make_ready, member)

    # Scaling

    def _tick(self, _: object = None) -> None:
        now, usage = self.kernel.now(), self.usage
        open_requests = sum(m.open for m in self._members.values()) + len(self._waiting)
        passed, self._last_tick_s = now - self._last_tick_s, now
        need = min(open_requests / self.spec.concurrency, float(len(self._members)))
        usage.used_s += need * passed
        usage.counts.append((now, len(self._members), open_requests))
        if self._scaler is not None:
            self._scale(self._scaler.decide(now, open_requests))
        if self.kernel.pending:
            self.kernel.at(now + self.spec.tick_s, self._tick)

    def _scale(self, wanted: int) -> None:
        staying = [m for m in self._members.values() if m.state is not State.DRAINING]
        change = wanted - len(staying)
        if not change:
            return
        direction = 1 if change > 0 else -1
        self.usage.reversals += self._direction == -direction
        self._direction = direction
        if change < 0:
            staying.sort(key=lambda m: (m.state is State.READY, m.open, -m.index))
            for member in staying[:-change]:
                self._drain(member)
            return
        draining = [m for m in self._members.values() if m.state is State.DRAINING]
        for member in draining[:change]:
            self._open_door(member)
        for _ in range(change - len(draining[:change])):
            self.usage.starts += 1
            member = self._new_member()
            self.kernel.at(self.kernel.now() + self.spec.start_s, self._make_ready, member)

    def _drain(self, member: Member) -> None:
        self._close_door(member)
        if member.open and member.state is State.READY:
            member.state = State.DRAINING
        else:
            self._remove(member)


@lru_cache(maxsize=4096)
def _sampling(output_tokens: int) -> Sampling:
    return Sampling(temperature=0.0, max_tokens=output_tokens)
