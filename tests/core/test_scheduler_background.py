"""Background work: behind all others, a small share of a step, gone when the room is needed."""

from __future__ import annotations

import random

import pytest

from penstock.core.events import Finished, Held, Preempted
from penstock.core.request import BACKGROUND, FinishReason
from tests.core.test_scheduler import Rig
from tests.fakes import continuation, submission


@pytest.mark.parametrize("policy", ["fcfs", "priority"])
def test_background_work_goes_last_whatever_the_policy(policy: str) -> None:
    rig = Rig(seqs=1, policy=policy)
    rig.scheduler.add(submission("row", [1, 2], 3, priority=BACKGROUND))
    rig.scheduler.add(submission("late", [3, 4], 3, priority=2**31 - 1, arrival_s=1e6))
    rig.run()
    assert [event.id for event in rig.of(Finished)] == ["late", "row"]
    assert rig.text("row") == continuation([1, 2], 3)


def test_it_has_a_quarter_of_a_step() -> None:
    rig = Rig(budget=16)
    rig.scheduler.add(submission("row", range(12), 2, priority=BACKGROUND))
    assert rig.step().counts == [4]
    rig.scheduler.add(submission("b", [50], 4))
    assert rig.step().counts == [1], "it pauses while another waits for its first token"
    assert sorted(rig.step().counts) == [1, 4], "and goes on beside one that decodes"


def test_it_pauses_while_others_read_their_prompts() -> None:
    rig = Rig(budget=8)
    for name in "ab":
        rig.scheduler.add(submission(f"row {name}", [ord(name)], 30, priority=BACKGROUND))
    rig.step()
    rig.scheduler.add(submission("long", range(20), 4))
    assert [rig.step().counts for _ in range(3)] == [[8], [8], [4]]
    assert sorted(rig.step().counts) == [1, 1, 1]
    rig.run()
    assert rig.text("row a") == continuation([ord("a")], 30)


def test_it_gives_up_its_slot_at_once() -> None:
    rig = Rig(seqs=2)
    for name in "ab":
        rig.scheduler.add(submission(f"row {name}", [ord(name)], 9, priority=BACKGROUND))
    rig.step()
    rig.scheduler.add(submission("new", [7], 2))
    assert rig.step().counts == [1]
    assert [event.by for event in rig.of(Preempted)] == ["new"]
    assert rig.text("new") == continuation([7], 1)
    rig.run()
    for name in "ab":
        assert rig.text(f"row {name}") == continuation([ord(name)], 9)


def test_it_gives_up_its_blocks_at_once() -> None:
    rig = Rig(blocks=8, budget=32)
    rig.scheduler.add(submission("row", range(8), 20, priority=BACKGROUND))
    for _ in range(10):
        rig.step()
    rig.scheduler.add(submission("new", range(50, 70), 2))
    rig.step()
    assert rig.text("new") == continuation(range(50, 70), 1)
    rig.run()
    assert rig.text("row") == continuation(range(8), 20)


def test_nobody_waits_for_a_prefix_that_a_row_computes() -> None:
    rig = Rig(budget=16)
    rig.scheduler.add(submission("row", range(20), 2, priority=BACKGROUND))
    rig.step()
    rig.scheduler.add(submission("new", range(20), 2))
    rig.step()
    assert rig.of(Held) == []
    rig.run()
    assert rig.text("new") == rig.text("row") == continuation(range(20), 2)


def test_alone_it_is_not_planned_ahead() -> None:
    """Who comes while two steps of rows were under way would wait for both."""
    rig = Rig(depth=2)
    rig.scheduler.add(submission("row", [1], 9, priority=BACKGROUND))
    rig.executor.submit(rig.scheduler.schedule())
    assert not rig.scheduler.may_schedule
    rig.scheduler.add(submission("new", [2], 9))
    assert rig.scheduler.may_schedule


@pytest.mark.parametrize("depth", [1, 2])
def test_in_any_company_the_tokens_are_the_same(depth: int) -> None:
    """Rows and others come and go at random in a small cache; all end as they would alone."""
    rng = random.Random(depth)
    rig = Rig(blocks=12, budget=8, seqs=4, depth=depth)
    expected: dict[str, list[int]] = {}
    for number in range(60):
        row = rng.random() < 0.5
        prompt = [rng.randrange(4)] * rng.randrange(1, 12)
        count = rng.randrange(1, 12)
        name = f"{number}"
        expected[name] = continuation(prompt, count)
        priority = BACKGROUND if row else 0
        rig.scheduler.add(submission(name, prompt, count, priority=priority))
        for _ in range(rng.randrange(4)):
            while rig.scheduler.may_schedule and (plan := rig.scheduler.schedule()).slots:
                rig.executor.submit(plan)
            if rig.executor.queue:
                rig.scheduler.apply(rig.executor.collect())
            rig.events += rig.scheduler.take_events()
            rig.scheduler.check()
        if rng.random() < 0.1:
            gone = str(rng.randrange(number + 1))
            if rig.scheduler.abort(gone):
                del expected[gone]
    while rig.executor.queue:
        rig.scheduler.apply(rig.executor.collect())
    rig.run()
    ended = [event.id for event in rig.of(Finished) if event.reason is FinishReason.LENGTH]
    assert sorted(ended) == sorted(expected)
    for name, tokens in expected.items():
        assert rig.text(name) == tokens
