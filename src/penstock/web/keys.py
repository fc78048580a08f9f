"""API keys: `Authorization: Bearer <key>`, compared in constant time."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Sequence

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock.errors import AuthError
from penstock.web.caller import NOBODY, SCOPE_KEY, Caller
from penstock.web.errors import error_response
from penstock.web.quota import Account
from penstock.web.tenants import Tenant, digest_of


def mark(authorization: str | None) -> str:
    """What logs say of the key in this header: the beginning of its SHA-256; empty without one."""
    key = (authorization or "").partition(" ")[2].strip()
    return digest_of(key).hex()[:8] if key else ""


class Keys:
    """The accepted keys; without any, everybody is let in."""

    def __init__(
        self,
        keys: Sequence[str] = (),
        tenants: Sequence[Tenant] = (),
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """keys: without name and limits."""
        self._callers = [(digest_of(key), NOBODY) for key in keys]
        self.accounts = {tenant.name: Account(tenant, now) for tenant in tenants}
        self._callers += [
            (account.tenant.digest, Caller(name, account=account))
            for name, account in self.accounts.items()
        ]

    def check(self, authorization: str | None, key_alone: str | None = None) -> Caller:
        """Who it is; raise AuthError unless a header names one of the keys. key_alone: x-api-key,
        which counts where there is no Authorization."""
        if not self._callers:
            return NOBODY
        if not authorization and key_alone:
            authorization = f"Bearer {key_alone}"
        cure = "Send the header 'Authorization: Bearer <key>'."
        if not authorization:
            raise AuthError("This server needs an API key.", cure=cure)
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise AuthError("The Authorization header is not of the Bearer scheme.", cure=cure)
        # Digests have one length and every one is compared: the time taken tells nothing.
        given = digest_of(key.strip())
        found = [caller for known, caller in self._callers if hmac.compare_digest(given, known)]
        if not found:
            raise AuthError("The API key is wrong.", cure="Ask whoever runs this server for one.")
        return found[0]


class KeyGate:
    """ASGI middleware: a request passes with a valid key, or to one of the `open_paths`. Replies
    tell what is left of the key's limits."""

    def __init__(self, app: ASGIApp, keys: Keys, open_paths: frozenset[str]) -> None:
        self.app, self.keys, self.open_paths = app, keys, open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        inside = SCOPE_KEY in scope  # from this very process
        if scope["type"] != "http" or inside or scope["path"] in self.open_paths:
            await self.app(scope, receive, send)
            return
        try:
            headers = Request(scope).headers
            caller = self.keys.check(headers.get("authorization"), headers.get("x-api-key"))
        except AuthError as error:
            await error_response(error, scope["path"])(scope, receive, send)
            return
        scope = {**scope, SCOPE_KEY: caller}
        await self.app(scope, receive, _telling(send, caller.account))


def _telling(send: Send, account: Account | None) -> Send:
    """`send` that adds the account's headers."""
    if account is None:
        return send

    async def tell(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in account.headers().items():
                headers[name] = value
        await send(message)

    return tell
