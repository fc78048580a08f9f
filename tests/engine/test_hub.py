from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from penstock.engine.hub import resolve_model
from penstock.errors import CheckpointError, ConfigError

RESPONSE = httpx.Response(404, request=httpx.Request("GET", "https://hub.invalid"))


class FakeHub:
    """Remembers what it was asked for; returns a folder or raises."""

    def __init__(self, answer: str | Exception) -> None:
        self.answer = answer
        self.asked: dict[str, Any] = {}

    def __call__(self, **asked: Any) -> str:
        self.asked = asked
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_a_local_folder_is_itself(tmp_path: Path) -> None:
    hub = FakeHub("unused")
    assert resolve_model(str(tmp_path), download=hub) == tmp_path
    assert not hub.asked


def test_a_hub_id_is_downloaded(tmp_path: Path) -> None:
    hub = FakeHub(str(tmp_path))
    assert resolve_model("owner/name", "v1", "cache", download=hub) == tmp_path
    assert hub.asked["repo_id"] == "owner/name"
    assert hub.asked["revision"] == "v1"
    assert hub.asked["cache_dir"] == "cache"
    assert "*.safetensors" in hub.asked["allow_patterns"]
    assert "*/*" in hub.asked["ignore_patterns"]


def test_a_revision_of_a_local_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="revision"):
        resolve_model(str(tmp_path), "v1")


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere", "name", "a/b/c"])
def test_what_is_neither_is_refused_without_asking_the_hub(name: str) -> None:
    hub = FakeHub("unused")
    with pytest.raises(CheckpointError, match="no folder"):
        resolve_model(name, download=hub)
    assert not hub.asked


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RepositoryNotFoundError("404", response=RESPONSE), "no such model"),
        (RevisionNotFoundError("404", response=RESPONSE), "no such revision"),
        (GatedRepoError("403", response=RESPONSE), "hf auth login"),
        (LocalEntryNotFoundError("cannot connect\nto the hub"), "cannot connect.*network"),
        (OfflineModeIsEnabled("offline mode"), "OfflineModeIsEnabled.*local folder"),
        (httpx.ConnectError("refused"), "ConnectError: refused"),
        (OSError(28, "No space left on device"), "No space left.*disk"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_what_goes_wrong_is_explained(error: Exception, said: str) -> None:
    with pytest.raises(CheckpointError, match=said) as caught:
        resolve_model("owner/name", "v1", download=FakeHub(error))
    assert "owner/name at revision 'v1'" in caught.value.message
    assert caught.value.cure
