"""Batches over a stand-in for the API, as a process of its own, to be killed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from penstock.jobs.batches import ENDS, Batches
from penstock.jobs.database import Database
from penstock.jobs.files import Files
from tests.jobs.fake_api import FakeApi
from tests.waiting import until

OWNER = "ann"


async def work(folder: Path, rows: int) -> None:
    """Make a batch unless there is one; go on with it to its end."""
    database = Database(folder / "state.sqlite")
    files = Files(database, folder / "files")
    batches = Batches(database, files)
    if not batches.page(OWNER, None, 1).data:
        file = files.save(OWNER, "in.jsonl", "batch", [line(n) for n in range(rows)])
        batches.create(OWNER, file["id"], "/v1/completions", None)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    batches.start(lambda owner: FakeApi(longest_s=0.02), 4, lambda *told: None)
    (batch,) = batches.page(OWNER, None, 1).data
    await until(lambda: batches.get(OWNER, batch["id"])["status"] in ENDS)
    await batches.stop()
    database.close()


def line(number: int) -> bytes:
    body = b'{"prompt": "p%d"}' % number
    same = b'"method": "POST", "url": "/v1/completions"'
    return b'{"custom_id": "c%d", %s, "body": %s}\n' % (number, same, body)


if __name__ == "__main__":
    asyncio.run(work(Path(sys.argv[1]), int(sys.argv[2])))
