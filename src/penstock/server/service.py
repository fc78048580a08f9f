"""What the routes share: the model once it is loaded, the door, the names, the metrics."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from starlette.responses import Response
from starlette.types import ASGIApp

from penstock.config import Config
from penstock.core.request import Adapter
from penstock.debug.canary import Canary
from penstock.engine.client import ModelInfo
from penstock.errors import (
    CheckpointError,
    EngineDeadError,
    EngineError,
    EngineStuckError,
    InvalidFieldError,
    ModelNotFoundError,
    NotEnabledError,
    PenstockError,
    UnavailableError,
    UnsupportedError,
)
from penstock.jobs.asgi import AppHandler
from penstock.llm import AsyncLLM, Generation
from penstock.observe.live import Live
from penstock.observe.metrics import Metrics
from penstock.server.calls import Call
from penstock.server.data import Data
from penstock.web.caller import SCOPE_KEY, Caller
from penstock.web.errors import as_typed, error_response, status_of
from penstock.web.keys import Keys
from penstock.web.limits import Door
from penstock.web.quota import Account
from penstock.web.sse import EventStream
from penstock.web.tenants import load as load_tenants

log = logging.getLogger(__name__)


class Service:
    """One model behind one door. `open` makes it ready; until then every request gets 503."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.names = config.served_names
        self.door = Door(config.max_running + config.max_waiting)
        self.metrics = Metrics(self.names[0])
        self.live = Live()
        self.opened_s = 0.0
        self.created = int(time.time())
        self._llm: AsyncLLM | None = None
        self._live: set[Generation] = set()
        self._canary: Canary | None = None
        self._watching: asyncio.Task[None] | None = None
        server = config.server
        tenants = load_tenants(Path(server.api_keys_file)) if server.api_keys_file else []
        self.keys = Keys(server.api_key, tenants)
        folder = server.data_dir
        self._data = None if folder is None else Data(Path(folder))
        self.app: ASGIApp | None = None
        """set by the application that is made over this service; rows of batches go there"""

    def open(self, llm: AsyncLLM) -> None:
        """The model is loaded: requests are served from now on."""
        llm.client.subscribe(self.metrics)
        llm.client.subscribe(self.live)
        self.opened_s = llm.clock.now()
        self.metrics.ready(llm.info)
        if llm.log is not None:
            self.metrics.watch_log(llm.log)
        llm.times = self.metrics
        self._llm = llm
        if self._data is not None:
            rows = max(1, self.config.max_running // 2)  # the others find places free
            batches = self._data.batches
            batches.start(self._background, rows, self.metrics.batch_rows)
            self.metrics.watch_batches(lambda: batches.num_waiting)

    def watch(self) -> None:
        """Send the canary, if one is wanted. From the event loop, once the model is open."""
        every_s, copies = self.config.log.canary_interval_s, self.config.engine.data_parallel_size
        if every_s:
            self._canary = Canary(self.llm(), every_s, copies, self.metrics.canary)
            self._watching = asyncio.create_task(self._canary.run())

    def _background(self, owner: str) -> AppHandler:
        """This server, as the rows of an owner's batches meet it."""
        assert self.app is not None
        caller = Caller(owner, background=True, account=self.keys.accounts.get(owner))
        return AppHandler(self.app, {SCOPE_KEY: caller})

    @property
    def keeps(self) -> bool:
        """Whether there is a data folder."""
        return self._data is not None

    def data(self) -> Data:
        """Raises NotEnabledError for a server that keeps nothing."""
        if self._data is None:
            raise NotEnabledError(
                "This server keeps no files, batches and responses.",
                cure="Start it with --data-dir FOLDER.",
            )
        return self._data

    def llm(self) -> AsyncLLM:
        """The model. Raises UnavailableError while it loads."""
        if self._llm is None:
            raise UnavailableError(
                "The model is still loading.",
                cure="Retry; /ready answers 200 as soon as it is loaded.",
                retry_after_s=2.0,
            )
        return self._llm

    def check_health(self) -> list[str]:
        """See EngineClient.check_health. Requests do not ask: they wait for an engine that is
        being replaced, as long as their deadlines allow."""
        found = self.llm().client.check_health(self.config.server.health_stuck_after_s)
        if self._canary is not None:
            self._canary.check_health()
        return found

    def check_model(self, name: str | None) -> None:
        """Raise ModelNotFoundError for another name than those served; none at all is fine."""
        served = (*self.names, *self.adapters)
        if name is not None and name not in served:
            raise ModelNotFoundError(
                f"The model {name!r} is not served here.",
                cure=f"Served: {', '.join(served)}.",
                param="model",
            )

    @property
    def adapters(self) -> dict[str, Adapter]:
        """Those loaded, by name."""
        return {} if self._llm is None else self._llm.adapters

    async def load_adapter(self, name: str, path: str) -> Adapter:
        """Raises InvalidFieldError for an adapter that cannot be used or a name that is taken."""
        if name in self.names:
            raise InvalidFieldError(f"{name!r} is the model itself.", param="lora_name")
        try:
            return await self.llm().load_adapter(name, path)
        except (CheckpointError, UnsupportedError) as error:
            raise InvalidFieldError(error.message, cure=error.cure, param="lora_path") from error

    def unload_adapter(self, name: str) -> None:
        """Raises ModelNotFoundError, and UnavailableError while requests run with it."""
        adapter = self.adapters.get(name)
        if adapter is None:
            raise ModelNotFoundError(f"No adapter {name!r} is loaded.", param="lora_name")
        users = sum(generation.adapter is adapter for generation in self._live)
        if users:
            raise UnavailableError(
                f"{users} requests run with the adapter {name!r}.",
                cure="Try again when they have ended.",
                retry_after_s=1.0,
            )
        del self.adapters[name]

    @asynccontextmanager
    async def running(self, call: Call) -> AsyncGenerator[list[Generation], None]:
        """Submit a call's prompts; on leaving, whatever is not finished is aborted.

        Raises what `Door.admit`, `AsyncLLM.generate` and `AsyncLLM.chat` raise.
        """
        async with AsyncExitStack() as stack:
            account = call.caller.account
            generations: list[Generation] = []
            if not call.caller.background:  # how many rows run at once is the batches' affair
                if account is not None:
                    stack.enter_context(account.admit())
                stack.enter_context(self.door.admit(call.num_choices))
            if account is not None:
                stack.callback(self._charge, call, account, generations)
            for generate in call.prompts:
                generation = await stack.enter_async_context(await generate())
                self._live.add(generation)
                stack.callback(self._live.discard, generation)
                generations.append(generation)
            self.metrics.requested(call.params.n, call.params.max_tokens)
            yield generations

    def _charge(self, call: Call, account: Account, generations: list[Generation]) -> None:
        """The call is over: count its tokens. Those of batches count in metrics alone."""
        usages = [generation.usage for generation in generations]
        prompt = sum(usage.prompt_tokens for usage in usages)
        output = sum(usage.completion_tokens for usage in usages)
        if not call.caller.background:
            account.charge("tokens", prompt + output)
        self.metrics.key_used(account.tenant.name, prompt, output)

    def stream(
        self,
        first: bytes,
        frames: AsyncGenerator[bytes, None],
        call: Call,
        headers: Mapping[str, str] | None = None,
    ) -> EventStream:
        """The reply that streams these frames."""
        return EventStream(
            first,
            frames,
            {"X-Request-Id": call.request_id, **(headers or {})},
            self.count_error,
            call.patience_s(),
            self.config.server.sse_keep_alive_s,
        )

    def abort_all(self) -> None:
        """End everything that runs; its clients are told that the server shuts down."""
        if self._llm is not None:
            for generation in list(self._live):
                self._llm.abort(generation.request_id, generation.params.n)

    def count_error(self, error: PenstockError) -> None:
        status = status_of(error.code)
        self.metrics.http_error(error.code, status)
        if status in (429, 503):
            self.metrics.rejected(error.code)
            if self._llm is not None and self._llm.log is not None:
                self._llm.log.rejected(error.code)
        if isinstance(error, EngineDeadError | EngineStuckError | EngineError):
            log.error("a request failed: %s", error)

    def refuse(self, error: Exception, request_id: str, path: str = "") -> Response:
        """The reply to a request to `path` that failed before its reply began."""
        typed = as_typed(error)
        self.count_error(typed)
        response = error_response(typed, path)
        response.headers["X-Request-Id"] = request_id
        return response

    @property
    def info(self) -> ModelInfo | None:
        """What the engine settled; None while the model loads."""
        return None if self._llm is None else self._llm.info

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        if self._data is not None:
            await self._data.close()
        if self._llm is not None:
            await self._llm.close()
