from __future__ import annotations

import pytest

from penstock.core.policy import fcfs, make_policy, priority
from penstock.errors import ConfigError
from tests.fakes import submission


def test_fcfs_is_the_order_of_arrival() -> None:
    assert fcfs(submission("a", [1], priority=9), 0) < fcfs(submission("b", [1]), 1)


def test_priority_goes_first_and_waiting_makes_up_for_it() -> None:
    key = priority(ageing_s=10.0)
    early_low = key(submission("a", [1], priority=1, arrival_s=0.0), 0)
    soon_high = key(submission("b", [1], priority=0, arrival_s=9.0), 1)
    late_high = key(submission("c", [1], priority=0, arrival_s=11.0), 2)
    assert soon_high < early_low < late_high


def test_equal_standing_falls_back_to_arrival() -> None:
    key = priority(ageing_s=10.0)
    assert key(submission("a", [1]), 0) < key(submission("b", [1]), 1)


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ConfigError, match="fcfs or priority"):
        make_policy("random", 1.0)
    with pytest.raises(ConfigError, match="ageing"):
        make_policy("priority", 0.0)
