from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.forks import ForkServer

# A machine that does other things as well is slow, not wrong.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak-seconds", type=float, default=600.0, help="length of the long soak")


@pytest.fixture(scope="session")
def forks() -> Iterator[ForkServer]:
    """Starts processes that need torch at little cost."""
    with ForkServer() as server:
        yield server
