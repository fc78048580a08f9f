from __future__ import annotations

from penstock.web.caller import SCOPE_KEY, Caller, caller_of


def test_nobody_is_known_before_the_door() -> None:
    assert caller_of({}) == Caller()
    assert caller_of({SCOPE_KEY: "a text that somebody smuggled in"}) == Caller()
    assert caller_of({SCOPE_KEY: Caller("ann")}).name == "ann"
