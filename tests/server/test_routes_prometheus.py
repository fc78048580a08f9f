"""A real Prometheus (Debian's) reads a real server, and takes what our dashboard asks for."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from penstock.observe import grafana
from penstock.observe.metrics import Metrics
from tests.server.process import Server, wait

PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
SLOW_S = 60.0

pytestmark = pytest.mark.skipif(
    PROMETHEUS is None or PROMTOOL is None, reason="system package prometheus is missing"
)


def ask(address: str, query: str) -> list[Any]:
    reply = httpx.get(f"{address}/api/v1/query", params={"query": query}, timeout=SLOW_S).json()
    assert reply["status"] == "success", (query, reply)
    result: list[Any] = reply["data"]["result"]
    return result


@pytest.fixture(scope="module")
def prometheus(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address; it reads the server each second."""
    folder = tmp_path_factory.mktemp("prometheus")
    target = server.url.removeprefix("http://")
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: penstock, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        str(PROMETHEUS),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    address = f"http://127.0.0.1:{port}"

    def up() -> bool:
        assert process.poll() is None, (folder / "output").read_text()
        try:
            return [r["value"][1] for r in ask(address, "up")] == ["1"]
        except (httpx.TransportError, ValueError):  # it answers in words while it starts
            return False

    try:
        wait(up, SLOW_S, (folder / "output").read_text)
        yield address
    finally:
        process.terminate()
        process.wait(SLOW_S)


def test_promtool_finds_nothing_wrong_with_our_names() -> None:
    page = Metrics("demo").render()
    done = subprocess.run(
        [str(PROMTOOL), "check", "metrics"], input=page, capture_output=True, check=False
    )
    # Colons and vLLM's names are what dashboards of the field expect; promtool advises otherwise.
    advice = (b"should not contain ':'", b"vllm:")
    told = [line for line in done.stderr.splitlines() if not any(word in line for word in advice)]
    assert told == []
    assert done.returncode in (0, 3), done.stderr  # 3: advice alone


def test_what_the_server_counts_arrives(prometheus: str, server: Server) -> None:
    body = {"model": "tiny", "prompt": [5, 6, 7], "max_tokens": 4, "ignore_eos": True}
    headers = {"Authorization": "Bearer a key of the tests"}
    before = server.metric("penstock:generation_tokens_total")
    httpx.post(f"{server.url}/v1/completions", json=body, headers=headers, timeout=SLOW_S)

    def arrived() -> bool:
        (found,) = ask(prometheus, "penstock:generation_tokens_total")
        return float(found["value"][1]) >= before + 4

    wait(arrived, SLOW_S)
    (alias,) = ask(prometheus, "vllm:generation_tokens_total")
    assert alias["metric"]["model_name"] == "tiny"


def test_prometheus_takes_every_expression_of_the_dashboard(prometheus: str) -> None:
    filled = {"$__rate_interval": "1m", "$model": ".*", "$engine": ".*"}
    for panel in grafana.dashboard()["panels"]:
        for target in panel["targets"]:
            query = target["expr"]
            for name, value in filled.items():
                query = query.replace(name, value)
            ask(prometheus, query)
    assert ask(
        prometheus,
        grafana.level(grafana.c.BLOCKS_TOTAL).replace("$model", ".*").replace("$engine", ".*"),
    )
