from __future__ import annotations

from pathlib import Path

import pytest

from penstock.errors import ConfigError
from penstock.server.data import Data


async def test_what_is_kept_survives_closing(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "here"
    data = Data(folder)
    file = data.files.save("ann", "a", "batch", [b"x"])
    data.responses.add("ann", {"id": "resp_1"})
    await data.close()
    again = Data(folder)
    assert again.files.path(file["id"]).read_bytes() == b"x"
    assert again.responses.get("ann", "resp_1") == {"id": "resp_1"}
    await again.close()


async def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used"):
        Data(tmp_path / "file")
