"""Adapters by name: listed, chosen as the model, loaded and unloaded while the server runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.core.request import Submission
from penstock.engine.client import Delta
from penstock.engine.peft import CONFIG
from tests import oracle
from tests.adapters import make_adapter, room
from tests.server.stage import Stage, error_of, stage


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = oracle.FAMILIES["llama"][0]
    return oracle.make_checkpoint("llama", shape, 0, tmp_path_factory.mktemp("routes"))


@asynccontextmanager
async def adaptable(model: Path, allowed: bool = True) -> AsyncIterator[Stage]:
    async with stage() as made:
        config = made.service.config
        options = replace(config.model, allow_runtime_lora_updating=allowed)
        made.service.config = replace(config, model=options)
        made.service.llm().info.adapters = room(model)
        yield made


async def load(made: Stage, name: str, path: str) -> int:
    body = {"lora_name": name, "lora_path": path}
    return (await made.post("/v1/load_lora_adapter", body)).status_code


async def test_an_adapter_comes_is_used_and_goes(model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(model, tmp_path, 1)
    async with adaptable(model) as made:
        assert await load(made, "legal", adapter.path) == 200
        listed = (await made.http.get("/v1/models")).json()["data"]
        assert [entry["id"] for entry in listed] == ["demo", "legal"]
        assert (listed[1]["root"], listed[1]["parent"]) == (adapter.path, "demo")
        answers = [await made.chat(model="legal"), await made.complete(model="legal")]
        assert [answer.json()["model"] for answer in answers] == ["legal", "legal"]
        assert (await made.chat(model="demo")).json()["model"] == "demo"
        used = [s.adapter and s.adapter.digest for s in made.client.submissions]
        gone = await made.post("/v1/unload_lora_adapter", {"lora_name": "legal"})
        assert gone.json()["deleted"]
        assert error_of(await made.chat(model="legal"))["code"] == "model_not_found"
    assert used == [adapter.digest, adapter.digest, None]


async def test_an_adapter_in_use_stays(model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(model, tmp_path, 1)
    async with adaptable(model) as made:
        assert await load(made, "legal", adapter.path) == 200
        begun = asyncio.Event()

        def silent(submission: Submission) -> list[Delta]:
            begun.set()
            return []

        made.client.script = silent
        running = asyncio.create_task(made.chat(model="legal"))
        await begun.wait()
        refused = await made.post("/v1/unload_lora_adapter", {"lora_name": "legal"})
        assert (refused.status_code, error_of(refused)["code"]) == (503, "unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_refusals(model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(model, tmp_path, 1)
    async with adaptable(model) as made:
        assert await load(made, "legal", adapter.path) == 200
        for name, path, param in [
            ("legal", adapter.path, "lora_name"),
            ("demo", adapter.path, "lora_name"),
            ("other", str(tmp_path), "lora_path"),
        ]:
            body = {"lora_name": name, "lora_path": path}
            answer = await made.post("/v1/load_lora_adapter", body)
            assert (answer.status_code, error_of(answer)["param"]) == (400, param)
        (Path(adapter.path) / CONFIG).write_text('{"peft_type": "IA3"}')
        body = {"lora_name": "other", "lora_path": adapter.path}
        answer = await made.post("/v1/load_lora_adapter", body)
        assert "LORA" in error_of(answer)["message"]
        unknown = await made.post("/v1/unload_lora_adapter", {"lora_name": "other"})
        assert unknown.status_code == 404


async def test_where_clients_may_not(model: Path, tmp_path: Path) -> None:
    async with adaptable(model, allowed=False) as made:
        assert await load(made, "a", str(tmp_path)) == 400
    async with stage() as made:
        options = replace(made.service.config.model, allow_runtime_lora_updating=True)
        made.service.config = replace(made.service.config, model=options)
        body = {"lora_name": "a", "lora_path": str(tmp_path)}
        answer = await made.post("/v1/load_lora_adapter", body)
        assert "no slots" in error_of(answer)["message"]
