from __future__ import annotations

from penstock.core.clock import ManualClock
from penstock.web.caller import SCOPE_KEY, Caller, caller_of
from penstock.web.quota import Account
from penstock.web.tenants import Tenant


def test_nobody_is_known_before_the_door() -> None:
    assert caller_of({}) == Caller()
    assert caller_of({SCOPE_KEY: "a text that somebody smuggled in"}) == Caller()
    assert caller_of({SCOPE_KEY: Caller("ann")}).name == "ann"


def test_a_salt_is_the_keys_unless_it_shares() -> None:
    def caller(name: str, **fields: object) -> Caller:
        tenant = Tenant(name, b"", **fields)  # type: ignore[arg-type]
        return Caller(name, account=Account(tenant, ManualClock().now))

    assert Caller().salt("x") == caller("ann", share_cache=True).salt("x") == "x"
    salts = {caller(name).salt(own) for name in ("a", "ab") for own in ("", "b", "ab")}
    assert len(salts) == 6
    assert all(salt[0] == "\0" for salt in salts)
    assert caller("ann", weight=3.0).weight == 3.0
