"""The scheduler: which tokens the next step computes, and what its result means.

There are no phases. A request has tokens known and tokens computed; a step hands out one token
budget so that the second catches up with the first (the rule of vLLM's scheduler): requests that
already run go first, one token each for those that decode, then the chunks of those that still
read their prompt, then new ones. Prefix hits, chunking and resumption after a preemption are all
the same rule.

The scheduler is handed limits, pool, policy and clock; it owns no executor and calls nobody. It
allows `depth` plans that are not applied yet (1 = synchronous, 2 = overlapped). What happened
gathers as events.

Progress: running requests are kept in queue order, blocks are taken from the last in that order
only, and a request never takes them from one before it. So the first one always runs to its end,
whatever the others lose. After a preemption nobody is admitted in the same step, and whoever was
preempted comes back only when its blocks and a margin that grows with its losses are there.

Background work stands behind all others in every queue. It has a small share of each step, pauses
while somebody waits for a first token, and gives up slots and blocks that others need.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable
from operator import attrgetter

from penstock.core import prefix
from penstock.core.adapters import AdapterSlots
from penstock.core.admission import check_output, token_limit
from penstock.core.blocks import BlockPool
from penstock.core.clock import Clock
from penstock.core.events import (
    CacheChanged,
    Counters,
    Event,
    Finished,
    Held,
    Preempted,
    Queued,
    Released,
    Scheduled,
    TokensOut,
    WaitReason,
    chunk_events,
    embedded,
)
from penstock.core.fair import FairShares
from penstock.core.limits import Limits
from penstock.core.plan import UNKNOWN, BlockDelta, Entry, KVGroup, StepPlan, StepResult
from penstock.core.policy import Policy
from penstock.core.request import FinishReason, HoldReason, Request, Status, Submission
from penstock.core.sharing import SharedPrefixes
from penstock.core.tables import BlockTables
from penstock.core.waiting import Waiting
from penstock.errors import EngineError, InvalidFieldError

MAX_MARGIN = 8
"""Cap on the blocks a running request must be able to grow before another is admitted."""


_order = attrgetter("order")
_background = attrgetter("submission.background")


class Scheduler:
    def __init__(
        self,
        limits: Limits,
        pool: BlockPool,
        groups: tuple[KVGroup, ...],
        policy: Policy,
        clock: Clock,
        cache_key: str = "",
        fair: FairShares | None = None,
    ) -> None:
        """cache_key: whatever makes KV of this engine differ from another's (model, KV dtype).
        fair: between tenants; the policy orders each one's requests."""
        self.limits = limits
        self.pool = pool
        self.counters = Counters()
        self._tables = BlockTables(pool, groups)
        self._policy = policy
        self._clock = clock
        self._cache_key = cache_key
        self._requests: dict[str, Request] = {}
        self._waiting = Waiting(fair)
        self._prefilling: list[Request] = []
        self._decoding: list[Request] = []
        self._deadlines: list[tuple[float, str]] = []
        self._shared = SharedPrefixes()
        self._adapters = AdapterSlots(limits.max_adapters)
        self._free_slots = list(range(limits.max_num_seqs - 1, -1, -1))
        self._in_flight: deque[tuple[StepPlan, list[Request]]] = deque()
        self._events: list[Event] = []
        self._serial = 0
        self._step = 0
        self._num_background = 0
        self._background_left = 0  # tokens that it may still have in this step

    # What the engine asks

    @property
    def num_running(self) -> int:
        return len(self._prefilling) + len(self._decoding)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_held(self) -> int:
        return self._shared.num_held + self._adapters.num_held

    @property
    def num_in_flight(self) -> int:
        return len(self._in_flight)

    @property
    def has_work(self) -> bool:
        return bool(self._requests)

    @property
    def may_schedule(self) -> bool:
        alone = self._num_background == len(self._requests)  # who comes then waits for one step
        depth = self.limits.stages if alone else self.limits.depth
        return len(self._in_flight) < depth and bool(self._requests)

    def take_events(self) -> list[Event]:
        events, self._events = self._events, []
        stored, removed = self.pool.take_changes()
        if stored or removed:
            events.append(CacheChanged(stored, removed))
        return events

    def live_ids(self) -> list[str]:
        return list(self._requests)

    def check(self) -> None:
        """Prove that blocks, slots and queues balance. Raises AssertionError."""
        running = self._prefilling + self._decoding
        self.pool.check(b for r in running for table in r.blocks for b in table if b >= 0)
        slots = [r.slot for r in running] + self._free_slots
        assert sorted(slots) == list(range(self.limits.max_num_seqs)), "slots do not balance"
        self._waiting.check()
        total = len(running) + len(self._waiting) + self.num_held
        assert total == len(self._requests), "a request is in no queue or in two"
        assert all(r.computed <= len(r.tokens) + r.pending for r in running), "computed > known"
        self._shared.check(running)
        self._adapters.check(running)

    # Coming and going

    def add(self, submission: Submission) -> None:
        """Queue a request. Raises InvalidFieldError or ContextLengthError when it can never run;
        the scheduler's state is then unchanged."""
        if submission.id in self._requests:
            raise InvalidFieldError(
                f"A request with id {submission.id!r} is being served.",
                cure="Give each request an id of its own.",
                param="request_id",
            )
        self._adapters.check_possible(submission)
        limit = token_limit(submission, self.limits.max_model_len, self._tables.longest())
        request = Request(submission, len(self._tables.groups), limit)
        check_output(request)
        request.order = self._policy(submission, self._serial)
        self._serial += 1
        sampling = submission.sampling
        keys = (self._cache_key, *submission.cache_keys)
        if self.pool.retain:
            request.key = prefix.root(*keys)
        elif submission.group:
            request.key = prefix.root(*keys, submission.group)
        if request.key:
            self._tables.name_blocks(request)
        # These need every prompt position's hidden state, which the cache does not hold.
        whole = sampling.prompt_logprobs is not None or sampling.pooling == "mean"
        request.reads_cache = bool(request.key) and not whole
        self._requests[request.id] = request
        self._num_background += submission.background
        self._waiting.push(request)
        if request.deadline_s is not None:
            heapq.heappush(self._deadlines, (request.deadline_s, request.id))
        arrived = submission.arrival_s or None
        self._events.append(Queued(request.id, self._clock.now(), request.num_prompt, arrived))

    def abort(self, request_id: str, reason: FinishReason = FinishReason.ABORT) -> bool:
        """End a request wherever it stands; its blocks are free at once. False if unknown."""
        request = self._requests.get(request_id)
        if request is None:
            return False
        self._finish(request, reason)
        return True

    def preempt(self, request_id: str) -> bool:
        """Take a running request's slot and blocks; it comes back by itself and its tokens do
        not change. False if it does not run."""
        request = self._requests.get(request_id)
        if request is None or request.status is not Status.RUNNING:
            return False
        self._preempt(request, request)
        return True

    def _release(self, held: Iterable[Request]) -> None:
        for request in held:
            self._events.append(Released(request.id, self._clock.now()))
            self._waiting.push(request)

    def _expire(self, now: float) -> None:
        while self._deadlines and self._deadlines[0][0] <= now:
            self.abort(heapq.heappop(self._deadlines)[1], FinishReason.TIMEOUT)

    def _leave(self, request: Request) -> None:
        """Give up slot and blocks; plans in flight may still write to them (see StepPlan)."""
        for queue in (self._decoding, self._prefilling):
            if request in queue:
                queue.remove(request)
        self._free_slots.append(request.slot)
        request.slot = -1
        self._tables.release(request)
        request.computed = 0
        self._release(self._shared.leader_left(request) + self._adapters.left(request))

    def _finish(
        self,
        request: Request,
        reason: FinishReason,
        stop_id: int | None = None,
        error: EngineError | None = None,
    ) -> None:
        if request.status is Status.RUNNING:
            self._leave(request)
        elif request.status is Status.WAITING:
            self._waiting.left()
        elif request.hold is HoldReason.ADAPTER:
            self._adapters.drop(request)
        else:
            self._shared.drop(request)
        request.status = Status.FINISHED
        del self._requests[request.id]
        self._num_background -= request.submission.background
        self._waiting.charge_output(request)
        self._events.append(
            Finished(
                request.id,
                self._clock.now(),
                reason,
                request.num_prompt,
                request.num_output,
                request.cached_tokens,
                request.preemptions,
                stop_id,
                error.to_dict() if error else None,
            )
        )

    # Deciding

    def schedule(self) -> StepPlan:
        """The next plan. It may have no rows; such a plan is not to be submitted nor applied."""
        now = self._clock.now()
        self._expire(now)
        plan = StepPlan(self._step)
        members: list[Request] = []
        self._step_aside()
        preempted = self.counters.preemptions
        self._schedule_decodes(plan, members)
        budget = self.limits.max_num_batched_tokens - len(members)
        streams = self._decoding and not _background(self._decoding[0])
        if streams and self.limits.max_mixed_prefill_tokens is not None:
            budget = min(budget, self.limits.max_mixed_prefill_tokens)
        for request in list(self._prefilling):
            if budget and request.slot >= 0:
                budget -= self._schedule_chunk(request, budget, plan, members)
        wait = None if self.counters.preemptions == preempted else WaitReason.PREEMPTION
        wait = wait or self._admit(budget, plan, members, now)
        self._events += self._waiting.stands(wait, self._prefilling[:1] + self._decoding[:1], now)
        if members:
            self._in_flight.append((plan, members))
            self._step += 1
        return plan

    def _step_aside(self) -> None:
        """Background work pauses while others wait for a first token or read their prompts, and
        the last of it makes room for the first who waits."""
        self._background_left = self.limits.background_tokens
        if not self._num_background:
            return
        first = self._waiting.first()
        if first is not None and _background(first):
            first = None
        if first is not None or (self._prefilling and not _background(self._prefilling[0])):
            self._background_left = 0
        while first is not None:
            behind = [r for r in (*self._prefilling[-1:], *self._decoding[-1:]) if _background(r)]
            if not behind or (
                self._free_slots and self._room_for(first, self._tables.match(first))
            ):
                return
            self._preempt(max(behind, key=_order), first)

    def _schedule_decodes(self, plan: StepPlan, members: list[Request]) -> None:
        slots, starts, tokens = plan.slots, plan.starts, plan.tokens
        for request in self._next_decodes():
            start = request.computed
            known = request.tokens
            pending = request.pending
            if len(known) + pending >= request.limit or request.slot < 0:
                continue  # its last token is on the way, or it was preempted for one before it
            if start >= request.capacity and not self._grow(request, start + 1, plan):
                continue
            slots.append(request.slot)
            starts.append(start)
            tokens.append(UNKNOWN if pending else known[-1])
            request.computed = start + 1
            request.pending = pending + 1
            request.in_flight += 1
            members.append(request)
        plan.counts = [1] * len(members)
        plan.samples = [True] * len(members)

    def _next_decodes(self) -> list[Request]:
        limits, decoding = self.limits, self._decoding
        if self._num_background:
            first = bisect_left(decoding, True, key=_background)
            decoding = decoding[: first + self._background_left]
            self._background_left -= len(decoding) - first
        if limits.stages == 1:
            return decoding[: limits.max_num_batched_tokens]
        share = min(-(-len(decoding) // limits.depth), limits.max_num_batched_tokens)
        return [request for request in decoding if not request.pending][:share]

    def _schedule_chunk(
        self, request: Request, budget: int, plan: StepPlan, members: list[Request]
    ) -> int:
        """One row that brings `computed` nearer to the known tokens; returns its token count."""
        start, known = request.computed, len(request.tokens)
        if request.submission.background:
            budget = min(budget, self._background_left)
        end = min(known, start + budget)
        if end == start:
            return 0
        if end > request.capacity and not self._grow(request, end, plan):
            return 0
        last = end == known
        plan.slots.append(request.slot)
        plan.starts.append(start)
        plan.counts.append(end - start)
        plan.tokens.append(request.tokens[end - 1])
        plan.samples.append(last)
        request.computed = end
        request.in_flight += 1
        members.append(request)
        if request.submission.background:
            self._background_left -= end - start
        if last:
            request.pending = 1
            self._prefilling.remove(request)
            insort(self._decoding, request, key=_order)
        return end - start

    def _grow(self, request: Request, end: int, plan: StepPlan) -> bool:
        """Blocks for tokens up to `end`, if need be from the last in queue order."""
        self._tables.trim(request)
        while not self._tables.fits(request, end):
            victim = max(self._prefilling[-1:] + self._decoding[-1:], key=_order)
            self._preempt(victim, request)
            if victim is request:
                return False
        plan.blocks.extend(self._tables.extend(request, end))
        return True

    def _preempt(self, victim: Request, by: Request) -> None:
        lost = victim.computed
        self._leave(victim)
        victim.preemptions += 1
        self.counters.preemptions += 1
        self._waiting.push(victim)
        self._events.append(Preempted(victim.id, self._clock.now(), self._step, lost, by.id))

    def _admit(
        self, budget: int, plan: StepPlan, members: list[Request], now: float
    ) -> WaitReason | None:
        """Let in who is next, as far as limits allow; returns the limit that was met."""
        while request := self._waiting.first():
            if not (budget and self._free_slots):
                return WaitReason.TOKENS if self._free_slots else WaitReason.SLOTS
            if request.in_flight:
                return WaitReason.RESULT  # preempted; it will still add to its tokens
            if _background(request) and not self._background_left:
                return WaitReason.BACKGROUND
            hits = self._tables.match(request)
            if self._hold(request, hits, now):
                self._waiting.pop()
            elif self._room_for(request, hits):
                self._waiting.pop()
                self._enter(request, hits, plan, now)
                budget -= self._schedule_chunk(request, budget, plan, members)
            else:
                return WaitReason.BLOCKS
        return None

    def _hold(self, request: Request, hits: int, now: float) -> bool:
        """Whether to wait for a slot for its adapter, or for another request that is just
        computing the same prefix."""
        reason, behind = HoldReason.ADAPTER, ""
        if not self._adapters.hold_back(request):
            most = (len(request.tokens) - 1) // self.pool.block_size
            leader = self._shared.wait(request, hits, most) if request.reads_cache else None
            if leader is None:
                return False
            reason, behind = HoldReason.PREFIX, leader.id
        request.status = Status.HELD
        request.hold = reason
        self._events.append(Held(request.id, now, reason, behind))
        return True

    def _room_for(self, request: Request, hits: int) -> bool:
        chunk = self.limits.max_num_batched_tokens
        need = self._tables.needed(request, hits, chunk)
        if not self.num_running:
            return need <= self.pool.num_available
        promised = sum(self._tables.needed(r, -1, chunk) for r in self._prefilling)
        margin = min(1 + request.preemptions, MAX_MARGIN) * self.num_running
        return need + promised + margin <= self.pool.num_available

    def _enter(self, request: Request, hits: int, plan: StepPlan, now: float) -> None:
        request.slot = self._free_slots.pop()
        request.status = Status.RUNNING
        cached = self._tables.take(request, hits)
        resumed = request.preemptions > 0 or bool(request.submission.output)
        if not resumed:
            request.cached_tokens = cached
            self._waiting.charge_prompt(request)
        if request.reads_cache:
            self.counters.prefix_queries += len(request.tokens)
            self.counters.prefix_hits += cached
        request.computed = cached
        slot, tokens, sampling = request.slot, list(request.tokens), request.sampling
        place = self._adapters.take(request, plan)
        plan.entries.append(Entry(slot, request.id, tokens, request.num_prompt, sampling, place))
        for group, table in enumerate(request.blocks):
            first = request.first_needed[group]
            if first < len(table):
                plan.blocks.append(BlockDelta(request.slot, group, first, table[first:]))
        if not _background(request):  # nobody is to wait for what may pause at any time
            self._shared.lead(request, hits)
        insort(self._prefilling, request, key=_order)
        self._events.append(Scheduled(request.id, now, self._step, cached, resumed))

    # What came of it

    def apply(self, result: StepResult) -> None:
        """Take in the result of the oldest plan that is not applied yet."""
        plan, members = self._in_flight.popleft()
        assert plan.step == result.step, "results must come in the order of plans"
        if result.error is not None:
            self._fail(members, EngineError(str(result.error["message"])))
            return
        self._events += embedded((request.id for request in members), plan, result)
        now = self._clock.now()
        size = self.pool.block_size
        sampled = 0
        outputs, logprobs, events = result.tokens, result.logprobs, self._events
        for row, request in enumerate(members):
            request.in_flight -= 1
            new = None
            if plan.samples[row]:
                new = outputs[sampled]
                found = logprobs.get(sampled) if logprobs else None
                sampled += 1
            if request.status is Status.FINISHED:
                continue
            if new == []:  # before its blocks are committed: what is in them may be broken
                self._fail([request], EngineError("The model returned no usable logits."))
                continue
            if new is None or plan.counts[row] > 1:
                events += chunk_events(request.id, plan, row, result, now)
            if request.slot >= 0 and request.key:
                full = (plan.starts[row] + plan.counts[row]) // size
                if full > request.commits:
                    self._commit(request, full)
            if new is None:
                continue
            request.pending -= 1
            request.tokens.extend(new)
            events.append(TokensOut(request.id, now, plan.step, new, found))
            if new[-1] in request.stops:
                self._finish(request, FinishReason.STOP, stop_id=new[-1])
            elif len(request.tokens) >= request.limit:
                self._finish(request, FinishReason.LENGTH)

    def _commit(self, request: Request, full: int) -> None:
        """The first `full` blocks are written: let others read them."""
        self._tables.name_blocks(request)
        for index in range(request.commits, full):
            block_hash = request.hashes[index]
            self._tables.commit(request, index)
            self._release(self._shared.committed(request, block_hash))
        request.commits = full

    def _fail(self, members: list[Request], error: EngineError) -> None:
        """A step or a row failed: these requests end, all others go on."""
        for request in members:
            if request.status is not Status.FINISHED:
                self._finish(request, FinishReason.ERROR, error=error)
