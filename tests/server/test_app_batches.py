"""The Batch API by the official client, against a real server process."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from penstock.jobs.batches import ENDS
from tests.server.conftest import KEY
from tests.server.process import Server, serving, wait


def line(number: int, **body: Any) -> str:
    body = {"prompt": f"Fox {number}", "max_tokens": 24, "seed": number, "ignore_eos": True} | body
    same = {"custom_id": f"c{number}", "method": "POST", "url": "/v1/completions"}
    return json.dumps(same | {"body": body}) + "\n"


def client_of(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with client_of(server) as made:
        yield made


def start(client: openai.OpenAI, text: str) -> str:
    file = client.files.create(file=("in.jsonl", text.encode()), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/completions", completion_window="24h"
    )
    return batch.id


def ended(client: openai.OpenAI, id: str, timeout_s: float = 60) -> Any:
    wait(lambda: client.batches.retrieve(id).status in ENDS, timeout_s)
    return client.batches.retrieve(id)


def test_a_batch_from_upload_to_results(client: openai.OpenAI) -> None:
    batch = ended(client, start(client, line(0) + line(1, top_p=7) + line(2)))
    assert batch.status == "completed"
    assert (batch.request_counts.completed, batch.request_counts.failed) == (2, 1)
    rows = [json.loads(text) for text in client.files.content(batch.output_file_id).iter_lines()]
    assert [row["custom_id"] for row in rows] == ["c0", "c2"]
    alone = client.completions.create(
        model="tiny", prompt="Fox 2", max_tokens=24, seed=2, extra_body={"ignore_eos": True}
    )
    body = rows[1]["response"]["body"]
    assert body["choices"][0]["text"] == alone.choices[0].text
    (error,) = client.files.content(batch.error_file_id).iter_lines()
    assert json.loads(error)["response"]["body"]["error"]["param"] == "top_p"
    assert batch.id in [found.id for found in client.batches.list(limit=5)]
    assert batch.input_file_id in [found.id for found in client.files.list(purpose="batch")]
    assert client.files.delete(batch.input_file_id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(batch.input_file_id)


def test_cancelling_and_a_file_at_fault(client: openai.OpenAI) -> None:
    long = start(client, "".join(line(n, max_tokens=1900) for n in range(40)))
    wait(lambda: client.batches.retrieve(long).status == "in_progress", 30)
    assert client.batches.cancel(long).status in ("cancelling", "cancelled")
    assert ended(client, long).status == "cancelled"
    failed = ended(client, start(client, line(0) + "{ no json\n"))
    assert failed.status == "failed"
    assert failed.errors.data[0].line == 2


@pytest.mark.slow
def test_killed_five_times_each_row_is_there_once(checkpoint: Path, tmp_path: Path) -> None:
    """The server and its engine are killed with kill -9 while 500 rows run."""
    flags = ["--data-dir", str(tmp_path / "data"), "--num-threads", "1", "--api-key", KEY]
    rows, id, kills, rng = 500, "", 0, random.Random(5)
    while True:
        output = tmp_path / f"output-{kills}"
        with serving(checkpoint, output, *flags, "--served-model-name", "tiny") as server:
            with client_of(server) as client:
                if not id:
                    id = start(client, "".join(line(n, max_tokens=60) for n in range(rows)))
                if kills == 5:
                    batch = ended(client, id, 300)
                    lines = client.files.content(batch.output_file_id).iter_lines()
                    results = [json.loads(text) for text in lines]
                    break
                wait_for_rows(client, id, completed(client, id))
                time.sleep(rng.uniform(0, 0.1))
                assert client.batches.retrieve(id).status == "in_progress"
            server.process.kill()
            server.wait_exit()
            kills += 1
    assert (batch.request_counts.completed, batch.request_counts.failed) == (rows, 0)
    assert [row["custom_id"] for row in results] == [f"c{n}" for n in range(rows)]
    used = {row["response"]["body"]["usage"]["completion_tokens"] for row in results}
    assert used == {60}


def wait_for_rows(client: openai.OpenAI, id: str, before: int) -> None:
    wait(lambda: completed(client, id) > before, 60)


def completed(client: openai.OpenAI, id: str) -> int:
    counts = client.batches.retrieve(id).request_counts
    return counts.completed if counts else 0
