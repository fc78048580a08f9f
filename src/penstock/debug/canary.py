"""Golden prompts, run when the engine is idle: other tokens than the known ones mean that the
machine, not the request, is at fault.

The known ids are those of the first run by the same weights, code, configuration and kernels. They
stand in the log's folder, so that later starts and the other replicas over it are held to them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import secrets
from collections.abc import Callable
from pathlib import Path

from penstock.core.request import Sampling
from penstock.debug.direct import generate
from penstock.errors import CanaryError, PenstockError
from penstock.llm import AsyncLLM
from penstock.observe.identity import of_data

log = logging.getLogger(__name__)

PROMPTS, PROMPT_TOKENS, OUTPUT_TOKENS = 3, 24, 16
POLL_S = 0.5
"""How often an engine that is busy when its check is due is looked at again."""

Golden = list[list[int]]


def prompt(number: int, vocab_size: int) -> list[int]:
    """Ids that any vocabulary has, the same everywhere."""
    text = hashlib.sha512(f"canary {number}".encode()).digest()
    return [
        int.from_bytes(text[2 * i : 2 * i + 2], "little") % vocab_size for i in range(PROMPT_TOKENS)
    ]


class Canary:
    """failed: what is wrong, until a later run is right again."""

    def __init__(
        self,
        llm: AsyncLLM,
        interval_s: float,
        copies: int = 1,
        told: Callable[[bool], None] = lambda passed: None,
    ) -> None:
        """copies: of each prompt at once, so that each of several idle engines gets one.
        told: hears of each run whether it passed."""
        self._llm, self._interval_s, self._copies, self._told = llm, interval_s, copies, told
        self._golden: Golden | None = None
        self.failed: str | None = None

    def check_health(self) -> None:
        """Raises CanaryError while the last run was wrong."""
        if self.failed is not None:
            raise CanaryError(self.failed, cure="Take this replica out; see `penstock doctor`.")

    async def run(self) -> None:
        """Check at each interval, as soon as nothing else runs, until cancelled."""
        while True:
            wait_s = POLL_S
            if self._idle():
                wait_s = self._interval_s
                try:
                    await self.check()
                except PenstockError as error:  # the engine is gone or full: others say so
                    log.info("the canary could not run: %s", error)
            await asyncio.sleep(wait_s)

    def _idle(self) -> bool:
        stats = self._llm.client.stats()
        return not (stats.running or stats.waiting or stats.held)

    async def check(self) -> bool:
        """Run the golden prompts once. Raises what the engine answers."""
        if self._golden is None:
            self._golden = await asyncio.to_thread(self._read)
        found = await self._generate()
        if self._golden is None:
            self._golden = found[0]
            await asyncio.to_thread(self._write, found[0])
        wrong = [each for each in found if each != self._golden]
        passed = not wrong
        if wrong:
            self._fail(self._golden, wrong[0])
        elif self.failed is not None:
            self.failed = None
            self._note("canary_passed", "The golden prompts come out right again.")
        self._told(passed)
        return passed

    async def _generate(self) -> list[Golden]:
        """What each copy wrote."""
        llm = self._llm
        most = min(OUTPUT_TOKENS, llm.info.max_model_len - PROMPT_TOKENS)
        sampling = Sampling(temperature=0.0, max_tokens=most)
        salt = secrets.token_hex(8)  # nothing is read from the cache: all is computed

        async def one(copy: int, number: int) -> list[int]:
            ids = prompt(number, llm.info.vocab_size)
            own = f"{salt}-{copy}"
            return (await generate(llm.client, "canary", ids, sampling, own))[0]

        runs = [
            asyncio.gather(*(one(copy, number) for number in range(PROMPTS)))
            for copy in range(self._copies)
        ]
        return [list(run) for run in await asyncio.gather(*runs)]

    def _fail(self, golden: Golden, found: Golden) -> None:
        number = next(i for i, (a, b) in enumerate(zip(golden, found, strict=True)) if a != b)
        known, got = golden[number], found[number]
        pairs = enumerate(zip(known, got, strict=False))
        place = next((i for i, (a, b) in pairs if a != b), min(len(known), len(got)))
        self.failed = f"Golden prompt {number} came out otherwise from token {place} on."
        log.error("canary: %s", self.failed)
        self._note(
            "canary_failed", self.failed, prompt=number, position=place, known=known, found=got
        )

    def _note(self, kind: str, text: str, **data: object) -> None:
        if self._llm.log is not None:
            self._llm.log.note(kind, text, **data)

    # The known ids

    def _path(self) -> Path | None:
        if self._llm.log is None:
            return None
        hashes = self._llm.identity()["hashes"]
        return self._llm.log.folder / f"canary-{of_data(hashes)}.json"

    def _read(self) -> Golden | None:
        path = self._path()
        if path is None or not path.is_file():
            return None
        try:
            found: Golden = json.loads(path.read_text())["ids"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("canary: %s cannot be read (%s); it is made anew", path, error)
            return None
        return found

    def _write(self, golden: Golden) -> None:
        path = self._path()
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps({"ids": golden}) + "\n")
            except OSError as error:
                log.warning("canary: the known ids cannot be kept: %s", error)
