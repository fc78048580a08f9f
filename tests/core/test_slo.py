from __future__ import annotations

import pytest

from penstock.core.slo import Promise, Promises
from penstock.errors import ConfigError


def test_a_request_without_a_class_has_the_default_one() -> None:
    promises = Promises(agent=Promise(2.0, 0.3), default="agent")
    assert promises.of("") == promises.of("agent") == Promise(2.0, 0.3)
    assert promises.of("interactive").ttft_s == 1.0
    assert promises.is_batch("batch")
    assert not promises.is_batch("")
    assert Promises(default="batch").is_batch("")


def test_a_promise_of_no_time_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch"):
        Promises(batch=Promise(0.0, 1.0))
