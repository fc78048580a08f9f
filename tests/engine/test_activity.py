from __future__ import annotations

import time

from penstock.engine.activity import FIRST_STEP_S, STUCK_S, Activity, Pace


def test_a_step_is_stuck_at_ten_times_its_predicted_time() -> None:
    pace = Pace()
    assert pace.limit_s(100) == FIRST_STEP_S
    pace.note(100, 2.0)
    assert pace.limit_s(100) == 20.0
    assert pace.limit_s(64) == 20.0, "of the same size class"
    assert pace.limit_s(400) == 80.0, "scaled from the nearest class"
    assert pace.limit_s(1) == 20.0, "a small step may cost what a larger one did"
    for _ in range(50):
        pace.note(100, 0.01)
    assert pace.limit_s(100) == STUCK_S


def test_activity_is_told_in_words() -> None:
    activity = Activity()
    assert activity.now[0] == "starting"
    activity.begin("running step", 7, 5.0)
    phase, since, limit_s = activity.now
    assert (phase, limit_s) == ("running step 7", 5.0)
    assert since <= time.monotonic()
