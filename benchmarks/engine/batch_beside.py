"""Interactive requests beside a batch: what its rows cost those who wait for a first token.

    python -m benchmarks.engine.batch_beside [--pairs 3] [--requests 60] [--tiny]

One `penstock serve` with a data folder. The same Poisson arrivals of streaming requests hit it
alone and while a batch (`/v1/batches`) runs that is longer than the load; every prompt is new.
TTFT is the client's, from the request's last byte to the first token.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.harness import arguments, median_ratio, random_ids, save, verdict
from benchmarks.make_checkpoint import checkpoint
from penstock.bench.client import encode, exchange
from penstock.bench.http import HttpClient
from penstock.report.stats import percentile

VOCAB = {"tiny": 512, "l135": 49152}
URL = "/v1/completions"


@contextmanager
def server(model: Path, data: Path, log: Path) -> Iterator[str]:
    """The URL of a server that is ready."""
    flags = ["--port", "0", "--data-dir", str(data), "--max-model-len", "2048"]
    command = [sys.executable, "-m", "penstock.cli", "serve", str(model), *flags]
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            while "Serving at " not in log.read_text():
                assert process.poll() is None, log.read_text()
                time.sleep(0.1)
            yield log.read_text().split("Serving at ")[1].split("/v1")[0]
        finally:
            process.kill()


class Load:
    """The interactive requests: prompts that nobody sent before, at times that repeat."""

    def __init__(self, given: Any, url: str) -> None:
        self.given, self.url = given, url
        self.vocab = VOCAB["tiny" if given.tiny else "l135"]
        self._draw = 0

    def body(self, tokens: int) -> dict[str, Any]:
        self._draw += 1
        prompt = random_ids(self.given.prompt_len, self.vocab, f"beside/{self._draw}")
        return {"prompt": prompt, "max_tokens": tokens, "ignore_eos": True, "temperature": 0}

    async def run(self, index: int) -> dict[str, float]:
        """TTFT of all requests, in milliseconds."""
        rng, at = random.Random(index), 0.0
        client = HttpClient(self.url, timeout_s=600)
        tasks = []
        began = time.perf_counter()
        for _ in range(self.given.requests):
            at += rng.expovariate(self.given.rate)
            await asyncio.sleep(max(0.0, began + at - time.perf_counter()))
            body = encode(self.body(self.given.output_len) | {"stream": True})
            tasks.append(asyncio.create_task(exchange(client, URL, body)))
        seen = await asyncio.gather(*tasks)
        await client.close()
        assert not any(e.error for e in seen), [e.error for e in seen if e.error]
        ttft = [1e3 * (e.arrivals_s[0] - e.sent_s) for e in seen]
        return {f"p{q}": percentile(ttft, q) for q in (50, 95)}

    async def beside(self, index: int) -> dict[str, float]:
        """The same while a batch runs."""
        async with httpx.AsyncClient(base_url=self.url, timeout=600) as http:
            id = await self.start_batch(http)
            began, before = time.perf_counter(), await self.rows(http, id)
            await poll(lambda: self.rows(http, id))
            found = await self.run(index)
            done = await self.rows(http, id) - before
            batch = (await http.get(f"/v1/batches/{id}")).json()
            assert batch["status"] == "in_progress", "the batch was too short: raise --rows"
            found["rows_per_s"] = done / (time.perf_counter() - began)
            await http.post(f"/v1/batches/{id}/cancel")
            await poll(lambda: self.cancelled(http, id))
        return found

    async def start_batch(self, http: httpx.AsyncClient) -> str:
        line = {"method": "POST", "url": URL}
        rows = [
            json.dumps(line | {"custom_id": f"r{n}", "body": self.body(self.given.row_len)})
            for n in range(self.given.rows)
        ]
        files = {"file": ("in.jsonl", "\n".join(rows).encode())}
        file = (await http.post("/v1/files", files=files, data={"purpose": "batch"})).json()
        body = {"input_file_id": file["id"], "endpoint": URL, "completion_window": "24h"}
        id: str = (await http.post("/v1/batches", json=body)).json()["id"]
        return id

    async def rows(self, http: httpx.AsyncClient, id: str) -> int:
        counts = (await http.get(f"/v1/batches/{id}")).json()["request_counts"]
        done: int = counts["completed"]
        return done

    async def cancelled(self, http: httpx.AsyncClient, id: str) -> bool:
        return (await http.get(f"/v1/batches/{id}")).json()["status"] == "cancelled"


async def poll(look: Callable[[], Awaitable[Any]]) -> None:
    """Until what it returns is true."""
    while True:
        if await look():
            return
        await asyncio.sleep(0.05)


async def measure(load: Load, pairs: int) -> tuple[list[Any], list[Any]]:
    await load.run(-1)  # warm
    alone, beside = [], []
    for index in range(pairs):
        for is_beside in (False, True) if index % 2 == 0 else (True, False):
            if is_beside:
                beside.append(await load.beside(index))
            else:
                alone.append(await load.run(index))
    return alone, beside


def main() -> None:
    given = arguments(
        __doc__ or "",
        requests=60,
        rate=1.0,
        prompt_len=400,
        output_len=40,
        rows=2000,
        row_len=64,
    )
    model = checkpoint("tiny" if given.tiny else "l135")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        with server(model, place / "data", place / "log") as url:
            alone, beside = asyncio.run(measure(Load(given, url), given.pairs))
    for name, runs in (("alone", alone), ("beside a batch", beside)):
        for run in runs:
            print(f"{name:16}" + "".join(f"{key:>12}{value:9.1f}" for key, value in run.items()))
    ratio = median_ratio([run["p95"] for run in beside], [run["p95"] for run in alone])
    print(verdict("TTFT p95, beside a batch / alone", ratio, "<= 1.2", ratio <= 1.2))
    save("batch_beside", given, {"alone": alone, "beside": beside, "ttft_p95_ratio": ratio})


if __name__ == "__main__":
    main()
