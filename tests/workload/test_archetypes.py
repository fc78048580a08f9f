"""Three presets that are complete files."""

from __future__ import annotations

import pytest

from penstock.workload import file
from penstock.workload.archetypes import PRESETS
from penstock.workload.definition import ARCHETYPES


def test_there_is_one_for_each_archetype() -> None:
    assert tuple(PRESETS) == ARCHETYPES
    assert [preset().archetype for preset in PRESETS.values()] == list(ARCHETYPES)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_check_clean_with_their_rates_and_reuse(name: str) -> None:
    assert file.inspect(file.to_toml(PRESETS[name]()), name)[1] == []
