from __future__ import annotations

from rich.console import Console

from penstock.bench.serve import ServeOptions, measure
from penstock.bench.tables import render
from tests.bench.fake_server import Body, FakeServer, Reply, tokens


async def test_the_table_shows_levels_errors_and_notes() -> None:
    count = 0

    def sometimes(path: str, body: Body) -> Reply:
        nonlocal count
        count += 1
        if count == 3:
            return 429, {"error": {"code": "queue_full", "message": "come back later"}}
        return 200, tokens(body | {"max_tokens": 2}, cached=4)

    async with FakeServer(sometimes) as server:
        report = await measure(
            ServeOptions(url=server.url, input_len=8, output_len=3, concurrency=(2,))
        )
    console = Console(width=120)
    with console.capture() as capture:
        console.print(render(report))
    shown = capture.get()
    for words in ("TTFT", "TPOT", "ITL", "end to end", "p50", "p95", "p99", "output tok/s"):
        assert words in shown
    assert "fake at http://127.0.0.1" in shown
    assert "50%" in shown, "half of each prompt was cached"
    assert "1 failed: HTTP 429 queue_full: come back later" in shown
    assert "7 of 7 outputs ended before --output-len" in shown
