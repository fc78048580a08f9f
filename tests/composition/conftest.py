from __future__ import annotations

import pytest

from tests.composition.asking import Oracle, Program, make_checkpoint
from tests.forks import ForkServer

ENGINE = ("-m", "tests.composition.engine_process")


@pytest.fixture(scope="package")
def program(forks: ForkServer) -> Program:
    """Engine processes that are forked."""
    return (forks.python, *ENGINE)


@pytest.fixture(scope="package")
def plain(tmp_path_factory: pytest.TempPathFactory, program: Program) -> Oracle:
    return Oracle(make_checkpoint(tmp_path_factory.mktemp("composition")), program)
