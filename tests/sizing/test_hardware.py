"""The table is complete, each figure has a source, and own entries take a built-in's place."""

from __future__ import annotations

import pytest

from penstock.errors import ConfigError
from penstock.sizing.hardware import BUILT_IN, choose, read_devices, table, write_devices


def test_every_named_device_is_there_with_sources() -> None:
    assert {"A100", "H100", "H200", "B200", "L4", "L40S", "MI300X"} < set(table())
    for device in BUILT_IN:
        assert device.source
        assert device.price.source
        assert device.price.date
        assert list(device.problems()) == []
        spot, reserved, full = device.price.spot, device.price.reserved, device.price.on_demand
        assert 0 < (spot or 0) < (reserved or 0) < (full or 0)


def test_bandwidths_and_ridges_are_the_known_ones() -> None:
    devices = table()
    assert devices["H200"].bandwidth == 4.8e12
    assert devices["B200"].bandwidth == 8e12
    for name in ("A100", "H100", "H200", "B200", "L4", "L40S", "MI300X"):
        ridge = devices[name].ridge("bf16")
        assert ridge is not None
        assert 100 < ridge < 1000
    assert devices["A100"].ridge("fp8") is None


def test_entries_survive_a_file_and_replace() -> None:
    text = write_devices(BUILT_IN)
    assert read_devices(text, "own.toml") == BUILT_IN
    cheaper = text.replace("on_demand = 3.0", "on_demand = 1.0", 1)
    (own,) = [d for d in read_devices(cheaper, "own.toml") if d.name == "H100"]
    assert table([own])["H100"].price.on_demand == 1.0
    assert len(table([own])) == len(BUILT_IN)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("bandwidth = 2039000000000.0", "bandwidth = 0", r"own:\d+: device\[0\].bandwidth: is 0"),
        ("per_node = 8", "per_node = 0", "less than 1"),
        ("link = 300000000000.0", "link = 0.0", "per_node is more than 1"),
        ("source =", "sauce =", "Did you mean source"),
    ],
)
def test_wrong_entries_are_named(old: str, new: str, words: str) -> None:
    text = write_devices(BUILT_IN)
    assert old in text
    with pytest.raises(ConfigError, match=words):
        read_devices(text.replace(old, new, 1), "own")


def test_devices_are_chosen_by_name() -> None:
    assert [d.name for d in choose(["L4", "H100"], table())] == ["L4", "H100"]
    assert len(choose([], table())) == len(BUILT_IN)
    with pytest.raises(ConfigError, match="H1000"):
        choose(["H1000"], table())
