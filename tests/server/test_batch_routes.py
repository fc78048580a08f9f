"""Files and batches over the application with a scripted engine."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from penstock.core.request import BACKGROUND
from penstock.jobs.batches import ENDS
from tests.server.stage import Stage, error_of, stage
from tests.waiting import until


@pytest.fixture
async def s(tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage(data_dir=str(tmp_path), max_file_bytes=4096, api_key=("k",)) as made:
        made.http.headers["authorization"] = "Bearer k"
        yield made
        await made.service.close()


def row(number: int, url: str = "/v1/completions", **body: Any) -> str:
    line = {"custom_id": f"c{number}", "method": "POST", "url": url}
    return json.dumps({**line, "body": {"prompt": "Once", "max_tokens": 9, **body}})


async def upload(s: Stage, text: str | bytes, purpose: str = "batch") -> Any:
    files = {"file": ("in.jsonl", text.encode() if isinstance(text, str) else text)}
    return await s.http.post("/v1/files", files=files, data={"purpose": purpose})


async def create(s: Stage, file: str, **more: Any) -> Any:
    body = {"input_file_id": file, "endpoint": "/v1/completions", "completion_window": "24h"}
    return await s.post("/v1/batches", {**body, **more})


async def ended(s: Stage, id: str) -> Any:
    batches = s.service.data().batches
    await until(lambda: batches.get("", id)["status"] in ENDS)
    return (await s.http.get(f"/v1/batches/{id}")).json()


async def test_from_a_file_to_files(s: Stage) -> None:
    file = (await upload(s, "\n".join([row(0), row(1, temperature=-1), row(2)]))).json()
    made = (await create(s, file["id"], metadata={"a": "b"})).json()
    assert (made["object"], made["status"], made["metadata"]) == ("batch", "validating", {"a": "b"})
    batch = await ended(s, made["id"])
    assert batch["status"] == "completed", batch
    assert batch["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
    content = await s.http.get(f"/v1/files/{batch['output_file_id']}/content")
    rows = [json.loads(line) for line in content.text.splitlines()]
    assert [r["custom_id"] for r in rows] == ["c0", "c2"]
    assert rows[0]["response"]["body"]["choices"][0]["text"] == "wood"
    content = await s.http.get(f"/v1/files/{batch['error_file_id']}/content")
    assert json.loads(content.text)["response"]["body"]["error"]["param"] == "temperature"
    metrics = (await s.http.get("/metrics")).text
    done = [line for line in metrics.splitlines() if line.startswith("penstock:batch_rows_total")]
    assert any('outcome="done"' in line and line.endswith(" 2.0") for line in done)
    assert "penstock:batch_rows_waiting{" in metrics


async def test_rows_run_in_the_background_and_take_no_place(s: Stage) -> None:
    s.service.door.limit = 0  # full
    file = (await upload(s, row(0, priority=-3))).json()
    batch = await ended(s, (await create(s, file["id"])).json()["id"])
    assert batch["request_counts"]["completed"] == 1
    assert [submission.priority for submission in s.client.submissions] == [BACKGROUND - 3]


async def test_files_are_listed_and_deleted(s: Stage) -> None:
    ids = [(await upload(s, row(n))).json()["id"] for n in range(3)]
    listed = (await s.http.get("/v1/files", params={"limit": 2})).json()
    assert [f["id"] for f in listed["data"]] == [ids[2], ids[1]]
    assert listed["has_more"]
    rest = await s.http.get("/v1/files", params={"after": ids[1], "purpose": "batch"})
    assert [f["id"] for f in rest.json()["data"]] == [ids[0]]
    ascending = (await s.http.get("/v1/files", params={"order": "asc"})).json()
    assert [f["id"] for f in ascending["data"]] == ids
    described = (await s.http.get(f"/v1/files/{ids[0]}")).json()
    assert (described["filename"], described["status"]) == ("in.jsonl", "processed")
    assert (await s.http.delete(f"/v1/files/{ids[0]}")).json()["deleted"]
    for path in (f"/v1/files/{ids[0]}", f"/v1/files/{ids[0]}/content", "/v1/batches/none"):
        gone = await s.http.get(path)
        assert (gone.status_code, error_of(gone)["code"]) == (404, "not_found")


async def test_what_a_batch_needs_is_not_deleted(s: Stage) -> None:
    s.service.data().batches._handler_of = None  # nothing runs
    file = (await upload(s, row(0))).json()["id"]
    batch = (await create(s, file)).json()["id"]
    refused = await s.http.delete(f"/v1/files/{file}")
    assert refused.status_code == 400
    assert batch in error_of(refused)["message"]
    listed = (await s.http.get("/v1/batches")).json()
    assert [b["id"] for b in listed["data"]] == [batch]
    cancelled = (await s.post(f"/v1/batches/{batch}/cancel", {})).json()
    assert cancelled["status"] == "cancelling"


async def test_uploads_at_fault(s: Stage) -> None:
    big = await upload(s, b"x" * 5000)
    assert (big.status_code, error_of(big)["code"]) == (413, "body_too_large")
    assert "--max-file-bytes" in error_of(big)["message"]
    assert error_of(await upload(s, "x", purpose="fine-tune"))["param"] == "purpose"
    missing = await s.http.post("/v1/files", files={"other": ("a", b"x")})
    assert error_of(missing)["param"] == "other"
    plain = await s.post("/v1/files", {"file": "x"})
    assert "multipart" in error_of(plain)["message"]
    form = "multipart/form-data; boundary=b"
    broken = await s.http.post("/v1/files", content=b"--b\r\nno", headers={"content-type": form})
    assert broken.status_code == 400, broken.text
    none = await s.http.post(
        "/v1/files", content=b"x", headers={"content-type": "multipart/form-data"}
    )
    assert none.status_code == 400, none.text


async def test_batches_at_fault(s: Stage) -> None:
    file = (await upload(s, row(0))).json()["id"]
    for param, fields in (
        ("endpoint", {"endpoint": "/v1/audio"}),
        ("completion_window", {"completion_window": "1h"}),
        ("metadata", {"metadata": {"a": 1}}),
        ("output_expires_after", {"output_expires_after": {"seconds": 3600}}),
    ):
        refused = await create(s, file, **fields)
        assert (refused.status_code, error_of(refused)["param"]) == (400, param)
    assert (await create(s, "file-none")).status_code == 404
    for query in ("limit=0", "limit=x", "after=none", "order=up"):
        assert (await s.http.get(f"/v1/files?{query}")).status_code in (400, 404)
    ended_batch = await ended(s, (await create(s, file)).json()["id"])
    late = await s.post(f"/v1/batches/{ended_batch['id']}/cancel", {})
    assert late.status_code == 400


async def test_a_server_without_a_folder_says_so() -> None:
    async with stage() as bare:
        for path in ("/v1/files", "/v1/batches", "/v1/batches/b"):
            refused = await bare.http.get(path)
            assert (refused.status_code, error_of(refused)["code"]) == (404, "not_enabled")
            assert "--data-dir" in error_of(refused)["message"]
