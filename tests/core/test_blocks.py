from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.core.blocks import BlockPool


class PoolMachine(RuleBasedStateMachine):
    """Holders take, share, name and give back blocks; the books balance after each move."""

    @initialize(blocks=st.integers(1, 12), retain=st.booleans())
    def start(self, blocks: int, retain: bool) -> None:
        self.pool = BlockPool(blocks, 4, retain)
        self.pool.watch(0)
        self.told: set[bytes] = set()
        self.held: list[list[int]] = []

    @rule(count=st.integers(0, 5))
    def allocate(self, count: int) -> None:
        if count <= self.pool.num_available:
            self.held.append(self.pool.allocate(count))

    @precondition(lambda self: any(self.held))
    @rule(data=st.data(), name=st.binary(min_size=1, max_size=1))
    def commit(self, data: st.DataObject, name: bytes) -> None:
        blocks = data.draw(st.sampled_from([h for h in self.held if h]))
        self.pool.commit(data.draw(st.sampled_from(blocks)), 0, name)

    @rule()
    def tell(self) -> None:
        """Whoever follows the changes knows what can be looked up."""
        stored, removed = self.pool.take_changes()
        assert not set(stored) & set(removed)
        self.told = (self.told | set(stored)) - set(removed)
        for name in (bytes([i]) for i in range(256)):
            assert (name in self.told) == (self.pool.lookup(0, name) is not None)

    @rule(name=st.binary(min_size=1, max_size=1))
    def hit(self, name: bytes) -> None:
        block = self.pool.lookup(0, name)
        if block is not None:
            self.pool.take([block])
            self.held.append([block])

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.held) - 1))
        self.pool.release(reversed(self.held.pop(index)))

    @invariant()
    def balance(self) -> None:
        if hasattr(self, "pool"):
            self.pool.check(b for h in self.held for b in h)

    def teardown(self) -> None:
        for blocks in getattr(self, "held", []):
            self.pool.release(blocks)
        if hasattr(self, "pool"):
            assert self.pool.num_available == self.pool.num_blocks


PoolMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestPool = PoolMachine.TestCase


def test_what_was_given_up_first_is_evicted_first() -> None:
    pool = BlockPool(3, 4)
    blocks = pool.allocate(3)
    for name, block in zip((b"a", b"b", b"c"), blocks, strict=True):
        pool.commit(block, 0, name)
    pool.release(reversed(blocks))
    pool.allocate(1)
    assert pool.lookup(0, b"c") is None, "the tail goes first"
    assert pool.lookup(0, b"a") == blocks[0]


def test_the_first_of_two_equal_blocks_keeps_the_name() -> None:
    pool = BlockPool(2, 4)
    one, two = pool.allocate(2)
    pool.commit(one, 0, b"x")
    pool.commit(two, 0, b"x")
    assert pool.lookup(0, b"x") == one
    pool.release([two])
    assert pool.num_free == 1


def test_groups_do_not_share_names() -> None:
    pool = BlockPool(2, 4)
    pool.commit(pool.allocate(1)[0], 0, b"x")
    assert pool.lookup(1, b"x") is None


def test_changes_are_noted_for_the_watched_group_alone() -> None:
    pool = BlockPool(3, 4)
    one, two, three = pool.allocate(3)
    pool.commit(one, 0, b"before")
    pool.watch(1)
    pool.commit(two, 0, b"other")
    pool.commit(three, 1, b"watched")
    assert pool.take_changes() == ([b"watched"], [])
    assert pool.take_changes() == ([], [])


def test_check_names_what_is_wrong() -> None:
    pool = BlockPool(2, 4)
    held = pool.allocate(1)
    with pytest.raises(AssertionError, match="reference counts"):
        pool.check([])
    pool.check(held)
