"""API keys: `Authorization: Bearer <key>`, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from penstock.errors import AuthError
from penstock.web.caller import SCOPE_KEY
from penstock.web.errors import error_response


class Keys:
    """The accepted keys; without any, everybody is let in."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def check(self, authorization: str | None, key_alone: str | None = None) -> None:
        """Raise AuthError unless a header names one of the keys. key_alone: x-api-key, which
        counts where there is no Authorization."""
        if not self._digests:
            return
        if not authorization and key_alone:
            authorization = f"Bearer {key_alone}"
        cure = "Send the header 'Authorization: Bearer <key>'."
        if not authorization:
            raise AuthError("This server needs an API key.", cure=cure)
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise AuthError("The Authorization header is not of the Bearer scheme.", cure=cure)
        # Digests have one length and every one is compared: the time taken tells nothing.
        given = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).digest()
        if not sum([hmac.compare_digest(given, known) for known in self._digests]):
            raise AuthError("The API key is wrong.", cure="Ask whoever runs this server for one.")


class KeyGate:
    """ASGI middleware: a request passes with a valid key, or to one of the `open_paths`."""

    def __init__(self, app: ASGIApp, keys: Keys, open_paths: frozenset[str]) -> None:
        self.app, self.keys, self.open_paths = app, keys, open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        inside = SCOPE_KEY in scope  # from this very process
        if scope["type"] == "http" and not inside and scope["path"] not in self.open_paths:
            try:
                headers = Request(scope).headers
                self.keys.check(headers.get("authorization"), headers.get("x-api-key"))
            except AuthError as error:
                await error_response(error, scope["path"])(scope, receive, send)
                return
        await self.app(scope, receive, send)
