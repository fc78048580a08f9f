"""The table of features: what it refuses at start, and what it says."""

from __future__ import annotations

import pytest

from penstock.config import Config
from penstock.config.features import (
    FEATURES,
    Feature,
    alternatives,
    check_features,
    pairs,
    refusal,
    render_docs,
)
from penstock.errors import ConfigError, UnsupportedError
from penstock.llm.offline import config_of

ONE = Feature("one", {"tensor_parallel_size": 2}, excludes={"two": "their clocks differ"})
TWO = Feature("two", {"enable_prefix_caching": True})


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_options_switch_a_feature_on_and_off(feature: Feature) -> None:
    off = Config().values() | feature.off
    if not feature.how:  # else its fields alone do not tell
        assert not feature.is_on(off)
    assert feature.is_on(off | feature.options) == bool(feature.options)
    assert feature.switch
    assert off.keys() == Config().values().keys(), "no such option"
    assert feature.options or feature.request or feature.how


def test_names_are_known() -> None:
    names = [feature.name for feature in FEATURES]
    assert len(set(names)) == len(names)
    assert {name for feature in FEATURES for name in feature.excludes} <= set(names)


REFUSED = [(a, b) for a, b in pairs() if refusal(a, b) and a.options and b.options]


@pytest.mark.parametrize("pair", [(ONE, TWO), *REFUSED], ids=lambda pair: pair[0].name)
def test_a_refused_pair_refuses_with_its_names_and_the_reason(
    pair: tuple[Feature, Feature],
) -> None:
    a, b = pair
    values = Config().values() | a.options | b.options
    with pytest.raises(UnsupportedError) as error:
        check_features(values, pair)
    why = refusal(a, b)
    assert why is not None
    assert all(part in str(error.value) for part in (a.name, a.switch, b.name, b.switch, why))
    check_features(values | a.off | {"tensor_parallel_size": 1}, (ONE, TWO))
    if a is not ONE:
        with pytest.raises(ConfigError, match=why):
            config_of(**a.options | b.options)


def test_the_page_shows_every_pair() -> None:
    page = render_docs((ONE, TWO, Feature("three", request={"n": 2})))
    assert "| 1 | one |  | ✗ | ✓ |" in page
    assert "- one and two: their clocks differ." in page
    assert "`n` of a request" in page
    assert alternatives(ONE, ONE)
