from __future__ import annotations

import os
from itertools import combinations

import pytest
import torch

from penstock.errors import UnsupportedError
from penstock.parallel.meeting import Meeting, World
from penstock.parallel.stages import Stage


def test_seats_are_taken_from_the_last_stage_on() -> None:
    world = World(size=2, stages=3)
    seats = [world.seat(number) for number in range(world.processes)]
    ranks = [seat.ranks() for seat in seats]
    assert [r.number for r in ranks] == list(range(6))
    assert [(r.stage.index, r.rank) for r in ranks] == [
        (2, 0), (2, 1), (1, 0), (1, 1), (0, 0), (0, 1),
    ]  # fmt: skip
    assert [r.leads for r in ranks] == [True] + [False] * 5
    assert ranks[4].stage == Stage(0, 3)
    assert seats[4].sink == seats[2].source
    assert seats[2].sink == seats[0].source
    assert seats[0].sink is None
    assert seats[5].source is None
    assert seats[0].group == seats[1].group != seats[2].group
    world.close()


def test_parts_of_a_stage_stand_together_and_peers_hold_the_same_weights() -> None:
    world = World(size=2, stages=2, parts=3)
    seats = [world.seat(number) for number in range(world.processes)]
    ranks = [seat.ranks() for seat in seats]
    assert [r.number for r in ranks] == list(range(12))
    assert [(r.stage.index, r.part, r.rank) for r in ranks[:4]] == [
        (1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1),
    ]  # fmt: skip
    assert [r.leads for r in ranks] == [True] + [False] * 11
    for one, other in combinations(range(12), 2):
        a, b = ranks[one], ranks[other]
        same_stage = a.stage == b.stage
        assert (seats[one].group == seats[other].group) == (same_stage and a.part == b.part)
        assert (seats[one].peers == seats[other].peers) == (same_stage and a.rank == b.rank)
        linked = (a.part, a.rank) == (b.part, b.rank)
        assert (seats[other].sink is not None and seats[one].source == seats[other].sink) == linked
    world.close()


def test_its_files_are_closed_once() -> None:
    world = World(2, 2, 2)
    seat = world.seat(0)
    pulses = seat.pulses()
    world.close()
    world.close()
    pulses[2] = 5  # what is mapped stays
    assert pulses[2] == 5
    for fd in seat.fds:
        with pytest.raises(OSError):
            os.fstat(fd)


def test_shared_memory_is_for_the_cpu() -> None:
    meeting = Meeting.call(2)
    with pytest.raises(UnsupportedError, match="--device cpu"):
        meeting.connect(0, torch.device("cuda"), "shared_memory", lambda: False)
    for fd in meeting.fds:
        os.close(fd)
