"""Whatever the OpenAPI document lets one send: an answer or a typed refusal, and nothing is left.

Schemathesis generates the requests, those that fit the document and those that do not quite.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode

from penstock.core.request import Submission
from penstock.engine.client import Delta
from penstock.server.app import ROUTES
from penstock.server.openapi import described
from penstock.server.tables import EMBEDDINGS
from tests.llm.fake_client import deltas, logprobs
from tests.server.stage import TOKENIZER, Stage, stage

SMALL, LARGE = 6, 320
SLOW = pytest.mark.slow
SKIPPED = {"/metrics", "/", "/ui/{name}", "/dashboard/data", "/dashboard/requests/{name}"}
"""not of the API"""


def answers(submission: Submission) -> list[Delta]:
    """What an engine would say: with all that was asked for."""
    sampling = submission.sampling
    found = deltas(TOKENIZER.encode("wood")[: sampling.max_tokens])
    if sampling.logprobs is not None:
        for delta in found:
            delta.logprobs = logprobs(delta.tokens)
    if sampling.prompt_logprobs is not None:
        found[0].prompt_logprobs = logprobs(submission.prompt[1:])
    if sampling.pooling:
        found[0].embedding = [0.5] * 8
    return found


class Place:
    """The application, one event loop for all cases."""

    def __init__(self, folder: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.stack = AsyncExitStack()
        opening = stage(answers, data_dir=str(folder))
        self.stage: Stage = self.loop.run_until_complete(self.stack.enter_async_context(opening))
        llm = self.stage.service.llm()
        llm.info = replace(llm.info, hidden_size=8, shorter_embeddings=(0,))
        document = self.loop.run_until_complete(self.stage.http.get("/openapi.json")).json()
        self.schema = schemathesis.openapi.from_dict(document)

    def send(self, case: Any) -> Any:
        prepared = requests.Request(**case.as_transport_kwargs(base_url="http://test")).prepare()
        headers = {k: v for k, v in prepared.headers.items() if v.isascii() and "\n" not in v}
        request = self.stage.http.build_request(
            str(prepared.method), str(prepared.url), headers=headers, content=prepared.body
        )
        return self.loop.run_until_complete(self.stage.http.send(request))

    def close(self) -> None:
        self.loop.run_until_complete(self.stage.service.close())
        self.loop.run_until_complete(self.stack.aclose())
        self.loop.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("data"))
    yield made
    made.close()


PATHS = sorted(
    {(route.method, route.path.replace(":path", "")) for route in ROUTES}
    - {("GET", path) for path in SKIPPED}
)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("count", [SMALL, pytest.param(LARGE, marks=SLOW)])
@pytest.mark.parametrize(("method", "path"), PATHS)
def test_no_request_is_an_internal_error(place: Place, method: str, path: str, count: int) -> None:
    operation = place.schema[path][method]
    seen = 0
    bodies = [route.fields or route.form for route in ROUTES if route.path == path]
    wrong = (GenerationMode.NEGATIVE,) if any(bodies) and method == "POST" else ()
    for mode in (GenerationMode.POSITIVE, *wrong):
        cases = operation.as_strategy(generation_mode=mode)

        @settings(
            max_examples=count,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(cases)
        def run(case: Any) -> None:
            nonlocal seen
            seen += 1
            response = place.send(case)
            assert response.status_code < 500, (case.body, response.text)
            service = place.stage.service
            assert service.door.live == 0
            assert not service._live

        run()
    assert seen


def test_a_route_is_described() -> None:
    found = described("/v1/things/{id}/{name:path}", EMBEDDINGS, form=False, listed=True)
    places = [(p["in"], p["name"]) for p in found["parameters"]]
    assert places[:3] == [("path", "id"), ("path", "name"), ("query", "after")]
    body = found["requestBody"]["content"]["application/json"]["schema"]
    assert body["required"] == ["input"]
    assert "multipart/form-data" in described("/x", None, True, False)["requestBody"]["content"]
