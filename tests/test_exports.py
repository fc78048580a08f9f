"""The public names: a list that does not change by accident."""

from __future__ import annotations

import subprocess
import sys

import pytest

import penstock


def test_names() -> None:
    assert penstock.__all__ == ["LLM", "AsyncLLM", "SamplingParams", "__version__"]
    assert all(getattr(penstock, name) is not None for name in penstock.__all__)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'LLMs'"):
        _ = penstock.LLMs


def test_importing_the_package_loads_nothing_else() -> None:
    code = (
        "import penstock, sys; print(sorted(m for m in sys.modules if m.startswith('penstock.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert version("penstock") == penstock.__version__
