"""A stand-in for the API, and a batch run over it as its own process, to be killed."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path
from typing import Any

from penstock.jobs.batch import Batch
from penstock.jobs.runner import Reply


class FakeApi:
    """Answers with the prompt turned round; `{"status": s}` in the body asks for that status."""

    def __init__(self, longest_s: float = 0.0) -> None:
        self.longest_s = longest_s
        self.active = 0
        self.most_active = 0
        self.calls = 0

    async def __call__(self, url: str, body: dict[str, Any]) -> Reply:
        self.calls += 1
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        await asyncio.sleep(random.random() * self.longest_s)
        self.active -= 1
        status = body.get("status", 200)
        return Reply(status, f"req-{self.calls}", {"url": url, "text": body["prompt"][::-1]})


def main(input: str, output: str) -> None:
    with Batch(Path(input), Path(output), "fake") as batch:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        asyncio.run(batch.run(FakeApi(longest_s=0.04), concurrency=8))
        batch.export()


if __name__ == "__main__":
    main(*sys.argv[1:])
