"""Who sends a request, as the layers above the door know it: carried along in the ASGI scope."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SCOPE_KEY = "penstock.caller"


@dataclass(frozen=True, slots=True)
class Caller:
    name: str = ""
    """of the key; what one name keeps, no other sees"""
    background: bool = False
    """a row of a batch: it has passed the door with its batch, and takes what others leave"""


NOBODY = Caller()


def caller_of(scope: Mapping[str, Any]) -> Caller:
    caller = scope.get(SCOPE_KEY)
    return caller if isinstance(caller, Caller) else NOBODY
