from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.forks import ForkServer


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak-seconds", type=float, default=600.0, help="length of the long soak")


@pytest.fixture(scope="session")
def forks() -> Iterator[ForkServer]:
    """Starts processes that need torch at little cost."""
    with ForkServer() as server:
        yield server
