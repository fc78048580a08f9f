"""Who sends a request, as the layers above the door know it: carried along in the ASGI scope."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock.web.quota import Account

SCOPE_KEY = "penstock.caller"


@dataclass(frozen=True, slots=True)
class Caller:
    name: str = ""
    """of the key; what one name keeps, no other sees"""
    background: bool = False
    """a row of a batch: it has passed the door with its batch, and takes what others leave"""
    account: Account | None = None
    """limits and weight; None: no limits"""

    @property
    def weight(self) -> float:
        return 1.0 if self.account is None else self.account.tenant.weight

    def salt(self, own: str) -> str:
        """The prefix cache's salt for a request that brought `own`. No client can send one that
        begins with a zero byte, so that no other key reads what this one's requests wrote."""
        if self.account is None or self.account.tenant.share_cache:
            return own
        return f"\0{self.name}\0{own}"


NOBODY = Caller()


def caller_of(scope: Mapping[str, Any]) -> Caller:
    caller = scope.get(SCOPE_KEY)
    return caller if isinstance(caller, Caller) else NOBODY
