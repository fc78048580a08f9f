"""The scheduler's promises one by one; the state machine beside this file tries them together."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.core.blocks import BlockPool
from penstock.core.clock import ManualClock
from penstock.core.events import CacheChanged, Finished, Held, Preempted, Scheduled, TokensOut
from penstock.core.limits import Limits
from penstock.core.plan import UNKNOWN, KVGroup, StepPlan, StepResult
from penstock.core.policy import make_policy
from penstock.core.request import FinishReason
from penstock.core.scheduler import Scheduler
from penstock.errors import ContextLengthError, InvalidFieldError
from tests.fakes import FULL, FakeExecutor, continuation, submission

BLOCK = 4


class Rig:
    """A scheduler with the fake executor behind it."""

    def __init__(
        self,
        blocks: int = 64,
        budget: int = 64,
        seqs: int = 8,
        depth: int = 1,
        context: int = 128,
        retain: bool = True,
        groups: tuple[KVGroup, ...] = FULL,
        policy: str = "fcfs",
        mixed: int | None = None,
    ) -> None:
        self.clock = ManualClock()
        self.pool = BlockPool(blocks, BLOCK, retain)
        limits = Limits(seqs, budget, context, depth, max_mixed_prefill_tokens=mixed)
        self.scheduler = Scheduler(limits, self.pool, groups, make_policy(policy, 10), self.clock)
        self.executor = FakeExecutor(groups, BLOCK)
        self.events: list[Any] = []

    def step(self) -> StepPlan:
        plan = self.scheduler.schedule()
        if plan.slots:
            self.executor.submit(plan)
            self.scheduler.apply(self.executor.collect())
        self.events += self.scheduler.take_events()
        self.scheduler.check()
        return plan

    def run(self) -> None:
        for _ in range(1000):
            if not self.scheduler.has_work:
                return
            self.step()
        raise AssertionError("no end")

    def of(self, kind: type) -> list[Any]:
        return [e for e in self.events if isinstance(e, kind)]

    def text(self, request_id: str) -> list[int]:
        return [t for e in self.of(TokensOut) if e.id == request_id for t in e.tokens]


def test_a_late_request_joins_the_running_batch_at_the_next_step() -> None:
    rig = Rig()
    rig.scheduler.add(submission("long", range(4), 20))
    rig.step()
    rig.step()
    rig.scheduler.add(submission("short", [9], 1))
    plan = rig.step()
    assert sorted(plan.counts) == [1, 1]
    assert rig.text("short") == continuation([9], 1)


def test_decodes_go_first_and_a_long_prompt_takes_what_is_left() -> None:
    rig = Rig(budget=10)
    rig.scheduler.add(submission("a", range(4), 20))
    rig.step()
    rig.scheduler.add(submission("b", range(50, 80), 2))
    assert rig.step().counts == [1, 9]
    assert rig.step().counts == [1, 9]
    assert rig.step().counts == [1, 9]
    assert rig.step().samples == [True, True]
    rig.run()
    assert rig.text("b") == continuation(range(50, 80), 2)


def test_prompt_tokens_beside_decodes_have_a_limit_of_their_own() -> None:
    rig = Rig(budget=20, mixed=4)
    rig.scheduler.add(submission("a", range(30), 4))
    assert [rig.step().counts, rig.step().counts] == [[20], [10]]
    rig.scheduler.add(submission("b", range(50, 90), 2))
    assert [rig.step().counts for _ in range(3)] == [[1, 4]] * 3
    assert rig.step().counts == [20], "nobody decodes any more"
    rig.run()
    assert rig.text("b") == continuation(range(50, 90), 2)


def test_the_last_token_of_a_fully_cached_prompt_is_computed_again() -> None:
    rig = Rig()
    rig.scheduler.add(submission("a", range(8), 1))
    rig.run()
    rig.scheduler.add(submission("b", range(8), 1))
    assert rig.step().counts == [4]
    assert rig.of(Scheduled)[-1].cached_tokens == 4


def test_generated_tokens_are_found_again_by_the_next_turn() -> None:
    rig = Rig()
    rig.scheduler.add(submission("a", range(6), 7))
    rig.run()
    rig.scheduler.add(submission("b", [*range(6), *rig.text("a"), 77], 1))
    rig.run()
    assert rig.of(Scheduled)[-1].cached_tokens == 12


def test_another_salt_shares_nothing() -> None:
    rig = Rig()
    rig.scheduler.add(submission("a", range(9), 1, cache_salt="one"))
    rig.run()
    rig.scheduler.add(submission("b", range(9), 1, cache_salt="two"))
    rig.run()
    assert rig.of(Scheduled)[-1].cached_tokens == 0


def test_prompt_logprobs_bypass_cache_reads() -> None:
    rig = Rig()
    rig.scheduler.add(submission("a", range(9), 1))
    rig.run()
    rig.scheduler.add(submission("b", range(9), 1, prompt_logprobs=0))
    assert rig.step().counts == [9]


def test_equal_prompts_at_once_are_computed_once() -> None:
    rig = Rig(budget=24)
    for name in "abc":
        rig.scheduler.add(submission(name, range(17), 2))
    rig.run()
    assert [e.behind for e in rig.of(Held)] == ["a", "a"]
    computed = sum(sum(p.counts) for p in rig.executor.plans)
    assert computed == 17 + 2 * 1 + 3 * 1
    assert rig.text("b") == rig.text("c") == continuation(range(17), 2)


def test_held_requests_go_on_when_their_leader_is_aborted() -> None:
    rig = Rig(budget=24)
    rig.scheduler.add(submission("a", range(17), 2))
    rig.scheduler.add(submission("b", range(17), 2))
    rig.executor.submit(rig.scheduler.schedule())
    assert rig.scheduler.num_held == 1
    rig.scheduler.abort("a")
    assert rig.scheduler.num_held == 0
    rig.scheduler.apply(rig.executor.collect())
    rig.run()
    assert rig.text("b") == continuation(range(17), 2)


def test_choices_share_the_prompt_even_without_a_prefix_cache() -> None:
    rig = Rig(retain=False)
    for choice in range(3):
        rig.scheduler.add(submission(f"x-{choice}", range(9), 2, group="x"))
    rig.scheduler.add(submission("other", range(9), 2))
    rig.run()
    assert [e.cached_tokens for e in rig.of(Scheduled)] == [0, 0, 8, 8]
    assert rig.pool.num_free == rig.pool.num_blocks


def test_blocks_are_taken_from_the_last_in_order_and_no_token_changes() -> None:
    rig = Rig(blocks=8, seqs=2)
    rig.scheduler.add(submission("a", range(9), 12))
    rig.scheduler.add(submission("b", range(20, 29), 12))
    rig.run()
    assert {e.id for e in rig.of(Preempted)} == {"b"}
    assert {e.by for e in rig.of(Preempted)} <= {"a", "b"}
    assert rig.text("a") == continuation(range(9), 12)
    assert rig.text("b") == continuation(range(20, 29), 12)


def test_no_cascade_without_progress() -> None:
    """Twice as much work as blocks: each preemption is paid for by others' progress."""
    rig = Rig(blocks=16, seqs=8)
    for i in range(8):
        rig.scheduler.add(submission(str(i), range(20 * i, 20 * i + 9), 20))
    rig.run()
    assert len(rig.of(Preempted)) <= 16
    assert len(rig.of(Finished)) == 8


def test_priority_decides_who_waits() -> None:
    rig = Rig(seqs=1, policy="priority")
    rig.scheduler.add(submission("low", [1], 2, priority=5))
    rig.scheduler.add(submission("high", [2], 2, priority=0))
    rig.run()
    assert [e.id for e in rig.of(Finished)] == ["high", "low"]


def test_two_plans_in_flight_refer_to_the_token_between_them() -> None:
    rig = Rig(depth=2)
    rig.scheduler.add(submission("a", range(5), 4))
    first, second = rig.scheduler.schedule(), rig.scheduler.schedule()
    assert not rig.scheduler.may_schedule
    assert (first.tokens, second.tokens) == ([4], [UNKNOWN])
    assert second.starts == [5]


def test_a_row_computed_past_a_stop_is_discarded() -> None:
    rig = Rig(depth=2)
    stop = continuation(range(5), 1)[0]
    rig.scheduler.add(submission("a", range(5), 9, stop_ids=(stop,)))
    for plan in (rig.scheduler.schedule(), rig.scheduler.schedule()):
        rig.executor.submit(plan)
    for _ in range(2):
        rig.scheduler.apply(rig.executor.collect())
    events = rig.scheduler.take_events()
    assert [e.tokens for e in events if isinstance(e, TokensOut)] == [[stop]]
    assert not rig.scheduler.has_work
    rig.scheduler.check()


def test_a_deadline_drops_the_work_wherever_it_is() -> None:
    rig = Rig(seqs=1)
    rig.scheduler.add(submission("runs", range(5), 50, deadline_s=1.0))
    rig.scheduler.add(submission("waits", range(5), 50, deadline_s=1.0))
    rig.step()
    rig.clock.advance(2.0)
    rig.step()
    assert [e.reason for e in rig.of(Finished)] == [FinishReason.TIMEOUT] * 2
    assert rig.pool.num_available == rig.pool.num_blocks


def test_a_failed_step_ends_its_requests_and_no_others() -> None:
    rig = Rig(seqs=1)
    rig.scheduler.add(submission("a", range(5), 5))
    rig.scheduler.add(submission("b", range(5), 5))
    plan = rig.scheduler.schedule()
    rig.scheduler.apply(StepResult(plan.step, [], error={"message": "out of luck"}))
    rig.run()
    assert [(e.id, e.reason) for e in rig.of(Finished)] == [
        ("a", FinishReason.ERROR),
        ("b", FinishReason.LENGTH),
    ]


def test_a_row_without_a_token_fails_alone() -> None:
    rig = Rig()
    rig.scheduler.add(submission("a", [1], 5))
    rig.scheduler.add(submission("b", [2], 5))
    plan = rig.scheduler.schedule()
    rig.executor.submit(plan)
    result = rig.executor.collect()
    result.tokens[0] = []
    rig.scheduler.apply(result)
    rig.run()
    assert [e.reason for e in rig.of(Finished)] == [FinishReason.ERROR, FinishReason.LENGTH]


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "error", "says"),
    [
        ([], 1, InvalidFieldError, "no tokens"),
        (range(128), None, ContextLengthError, "the context holds 128"),
        (range(100), 29, ContextLengthError, "the context holds 128"),
        (range(30), 90, ContextLengthError, "kv-cache-memory-bytes"),
    ],
)
def test_the_impossible_is_refused_at_the_door(prompt, max_tokens, error, says) -> None:
    rig = Rig(blocks=16)
    with pytest.raises(error, match=says):
        rig.scheduler.add(submission("a", prompt, max_tokens))
    assert not rig.scheduler.has_work


def test_an_id_in_use_is_refused() -> None:
    rig = Rig()
    rig.scheduler.add(submission("a", [1], 5))
    with pytest.raises(InvalidFieldError, match="of its own"):
        rig.scheduler.add(submission("a", [1], 5))


def test_a_window_gives_back_what_it_passed() -> None:
    rig = Rig(blocks=16, groups=(KVGroup((0,), window=6),))
    rig.scheduler.add(submission("a", range(10), 40))
    rig.run()
    held = [sum(len(d.ids) for d in p.blocks) for p in rig.executor.plans]
    assert sum(held) == 13
    assert rig.text("a") == continuation(range(10), 40)


def test_a_window_needs_only_its_last_blocks_for_a_hit() -> None:
    groups = (KVGroup((0,), window=6),)
    rig = Rig(blocks=8, groups=groups)
    rig.scheduler.add(submission("a", range(24), 4))
    rig.run()
    rig.scheduler.add(submission("b", [*range(24), *rig.text("a")], 1))
    rig.run()
    assert rig.of(Scheduled)[-1].cached_tokens == 24


@pytest.mark.parametrize("budget", [8, 64])
@pytest.mark.parametrize("cut", [1, 3, 4, 19])
def test_a_continuation_writes_what_is_missing(cut: int, budget: int) -> None:
    """Another engine wrote the first tokens: they count as output, and are not told again."""
    expected = continuation(range(10), 20)
    rig = Rig(budget=budget)
    rig.scheduler.add(submission("a", range(10), 20, output=expected[:cut]))
    rig.run()
    assert rig.text("a") == expected[cut:]
    assert rig.executor.entries[rig.executor.plans[0].slots[0]].num_prompt == 10
    assert rig.of(Scheduled)[0].resumed
    (end,) = rig.of(Finished)
    assert (end.num_prompt, end.num_output, end.reason) == (10, 20, FinishReason.LENGTH)


@pytest.mark.parametrize(("output", "stop_ids"), [([1, 2, 3], ()), ([1, 2], (2,))])
def test_a_continuation_of_what_is_complete_is_refused(output: Any, stop_ids: Any) -> None:
    rig = Rig()
    with pytest.raises(InvalidFieldError, match="complete"):
        rig.scheduler.add(submission("a", range(10), 3, output=output, stop_ids=stop_ids))
    assert not rig.scheduler.has_work


def test_what_the_cache_stores_and_drops_is_told_to_those_who_ask() -> None:
    rig = Rig(blocks=8)
    rig.scheduler.add(submission("silent", range(8), 1))
    rig.run()
    assert not rig.of(CacheChanged)
    rig.pool.watch(0)
    rig.scheduler.add(submission("a", range(20, 32), 1))
    rig.run()
    rig.scheduler.add(submission("b", range(60, 88), 1))
    rig.run()
    held: set[bytes] = set()
    for event in rig.of(CacheChanged):
        held = (held | set(event.stored)) - set(event.removed)
    assert len(held) == 7 + 1, "b's blocks and the first of a's"
    assert all(rig.pool.lookup(0, name) is not None for name in held)


def test_same_inputs_same_events() -> None:
    def play() -> list[Any]:
        rig = Rig(blocks=12, budget=16, seqs=3)
        for i in range(6):
            rig.scheduler.add(submission(str(i), range(i % 3, i % 3 + 9), 9))
        rig.run()
        return rig.events

    assert play() == play()


def test_fcfs_is_the_default_name() -> None:
    first, second = submission("a", [1]), submission("b", [1], priority=-5)
    key = make_policy("fcfs", 0.0)
    assert key(first, 0) < key(second, 1)
