from __future__ import annotations

from penstock.config.engine import EngineConfig
from penstock.core.slo import CLASSES, Promise, Promises


def test_a_request_without_a_class_has_the_default_one() -> None:
    promises = Promises(agent=Promise(2.0, 0.3), default="agent")
    assert promises.of("") == promises.of("agent") == Promise(2.0, 0.3)
    assert promises.of("interactive").ttft_s == 1.0
    assert promises.is_batch("batch")
    assert not promises.is_batch("")
    assert Promises(default="batch").is_batch("")


def test_the_config_says_what_is_promised() -> None:
    assert Promises.of_config(EngineConfig()) == Promises()
    given = Promises.of_config(EngineConfig(slo_agent_itl_s=0.7, default_slo_class="batch"))
    assert given.of("agent").itl_s == 0.7
    assert given.default in CLASSES
