"""Number types of weights, arithmetic and KV cache, as the engine's formats store them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from penstock.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Precision:
    """Bytes of stored weights, and what the device computes in."""

    name: str
    weight_bits: float
    """of an element of a matrix"""
    group_bits: int = 0
    """of the scale of each group of GROUP elements (rows are padded to whole groups)"""
    row_bits: int = 0
    """of the scale of each row"""
    table_bits: float = 0.0
    """of an element of the embedding and the head"""
    table_row_bits: int = 0
    arithmetic: str = "bf16"
    """key into a device's FLOP/s"""
    value_bytes: int = 2
    """of activations, norms, biases and the KV cache"""

    def matrix_bytes(self, rows: int, size: int) -> float:
        groups = -(-size // GROUP)
        padded = groups * GROUP if self.group_bits else size
        bits = padded * self.weight_bits + groups * self.group_bits + self.row_bits
        return rows * bits / 8

    def table_bytes(self, rows: int, size: int) -> float:
        return rows * (size * self.table_bits + self.table_row_bits) / 8


GROUP = 32
PRECISIONS: Mapping[str, Precision] = {
    p.name: p
    for p in (
        Precision("fp32", 32, table_bits=32, arithmetic="fp32", value_bytes=4),
        Precision("bf16", 16, table_bits=16),
        Precision("fp16", 16, table_bits=16, arithmetic="fp16"),
        Precision("fp8", 8, row_bits=32, table_bits=16, arithmetic="fp8"),
        Precision("int8", 8, row_bits=32, table_bits=8, table_row_bits=32, arithmetic="int8"),
        Precision("int4", 4, group_bits=16, table_bits=8, table_row_bits=32, arithmetic="int8"),
        Precision("fp4", 4, group_bits=16, table_bits=16, arithmetic="fp4"),
    )
}


def precision(name: str) -> Precision:
    """Raises ConfigError for a name that is none."""
    if name not in PRECISIONS:
        cause = f"The precision {name!r} is unknown."
        raise ConfigError(cause, cure=f"Use one of {', '.join(PRECISIONS)}.", param="precision")
    return PRECISIONS[name]
