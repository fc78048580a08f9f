"""Bytes of stored numbers."""

from __future__ import annotations

import pytest

from penstock.errors import ConfigError
from penstock.sizing.hardware import DTYPES
from penstock.sizing.precision import PRECISIONS, precision


@pytest.mark.parametrize(
    ("name", "bytes_"),
    [("fp32", 4000), ("bf16", 2000), ("int8", 1004), ("int4", 32 * 16 + 32 * 2), ("fp8", 1004)],
)
def test_a_row_of_a_thousand(name: str, bytes_: float) -> None:
    assert PRECISIONS[name].matrix_bytes(1, 1000) == bytes_


def test_each_computes_in_what_devices_may_have() -> None:
    assert {p.arithmetic for p in PRECISIONS.values()} <= set(DTYPES)
    assert precision("int8") is PRECISIONS["int8"]
    with pytest.raises(ConfigError, match="fp7"):
        precision("fp7")
