"""The files of the page and the data of the dashboard, without a browser."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from penstock.server.pages import ASSETS
from tests.server.stage import error_of, stage


async def test_every_file_of_the_page_is_served_and_needs_no_key() -> None:
    async with stage(api_key=("secret",)) as s:
        page = await s.http.get("/")
        assert page.text.startswith("<!doctype html>")
        assert "default-src 'self'" in page.headers["content-security-policy"]
        for name, kind in ASSETS.items():
            reply = await s.http.get(f"/ui/{name}")
            assert (reply.status_code, reply.headers["content-type"]) == (200, kind)
        refused = await s.http.get("/dashboard/data")
    assert refused.status_code == 401


def test_the_page_names_no_other_host_and_no_file_that_is_not_there() -> None:
    folder = files("penstock.server") / "ui"
    assert {path.name for path in folder.iterdir()} == set(ASSETS)
    for name in ASSETS:
        text = (folder / name).read_text(encoding="utf-8").replace("http://www.w3.org/", "")
        assert not re.search(r"(https?:)?//\w+\.\w", text), name
    named = re.findall(r'"ui/([\w.]+)"', (folder / "index.html").read_text(encoding="utf-8"))
    assert named
    assert set(named) <= set(ASSETS)


async def test_another_file_is_not_found() -> None:
    async with stage() as s:
        for name in ("nothing.js", "..%2fapp.py", "__init__.py"):
            reply = await s.http.get(f"/ui/{name}")
            assert reply.status_code == 404


async def test_the_dashboards_data() -> None:
    async with stage() as s:
        reply = (await s.http.get("/dashboard/data")).json()
        assert reply["health"] == "healthy"
        assert reply["up_s"] >= 0
        assert reply["finished"] == reply["running"] == []
        assert [name for name, _ in reply["telemetry"]] == ["Memory of all processes"]


@pytest.mark.parametrize("path", ["/dashboard/data?second=x", "/dashboard/data?serial=1.5"])
async def test_a_wrong_parameter_is_named(path: str) -> None:
    async with stage() as s:
        reply = await s.http.get(path)
    assert (reply.status_code, error_of(reply)["code"]) == (400, "invalid_field")


async def test_an_unknown_request_is_not_found() -> None:
    async with stage() as s:
        reply = await s.http.get("/dashboard/requests/a%2Fb")
    assert (reply.status_code, error_of(reply)["code"]) == (404, "not_found")
