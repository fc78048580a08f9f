"""What a reader may rely on anywhere in the house, beside the import contracts in pyproject."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from penstock import registry
from penstock.cli import COMMANDS
from penstock.settings import Command

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "penstock"
CODE = sorted(
    path
    for folder in ("src", "tests", "tools", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
    if "__pycache__" not in path.parts
)

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
TOO_LONG: dict[str, str] = {
    "src/penstock/core/scheduler.py": "one state machine over one set of books",
    "src/penstock/llm/async_llm.py:generate": "a signature and what its arguments mean",
}
"""`path` or `path:function` -> why it may be longer"""

NO_MIRROR = {
    "attention/base.py": "an interface",
    "cli/__main__.py": "one line",
    "cli/doctor.py": "driven by drill/, which reads what it prints",
    "cli/serve.py": "two calls; the server's tests start the program",
    "config/engine.py": "fields only; checked by config/test_tree.py",
    "config/log.py": "fields only; checked by config/test_tree.py",
    "config/model.py": "fields only; checked by config/test_tree.py",
    "config/server.py": "fields only; checked by config/test_tree.py",
    "core/clock.py": "an interface and a fake of three lines",
    "core/events.py": "records",
    "core/limits.py": "a record",
    "core/plan.py": "records",
    "core/records.py": "records",
    "core/sharing.py": "part of the scheduler, driven by its state machine",
    "core/tables.py": "part of the scheduler, driven by its state machine",
    "core/waiting.py": "part of the scheduler, driven by its state machine",
    "debug/direct.py": "two calls of an engine client, used by test_replay.py and test_canary.py",
    "debug/doctor.py": "driven by drill/",
    "debug/faults_replicas.py": "driven by drill/",
    "debug/faults_text.py": "driven by drill/",
    "debug/faults_time.py": "driven by drill/",
    "debug/findings.py": "records",
    "engine/child.py": "driven by test_group.py, which kills, stops and hangs its processes",
    "engine/client.py": "an interface and records",
    "kernels/cpu/ops.py": "records",
    "layers/store.py": "an interface, and the one that keeps nothing",
    "evals/options.py": "fields only",
    "engine/clock.py": "one call",
    "engine/frames.py": "records",
    "engine/worker.py": "started and watched in test_workers.py",
    "engine/inprocess.py": "tested with its twin in test_process.py",
    "engine/placing.py": "the router's feed; driven by test_group.py",
    "engine/pulse.py": "driven by test_group.py: silence, stuck steps, a parent that is gone",
    "models/base.py": "an interface",
    "observe/assemble.py": "the recorder's other half, tested with it",
    "quant/base.py": "an interface",
}
"""Source files without a test of their name -> why."""

CORE_MAY_IMPORT = {
    "__future__", "bisect", "collections", "dataclasses", "enum", "functools", "hashlib", "heapq",
    "itertools", "math", "operator", "penstock", "struct", "sys", "typing",
}  # fmt: skip
"""Import-linter can only forbid; this list allows."""


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


def loaded_by(code: str) -> set[str]:
    """Modules that a fresh interpreter holds after running the code."""
    code += "\nimport sys; print(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_core_imports_only_what_is_allowed() -> None:
    extra = {name(path): imports(path) - CORE_MAY_IMPORT for path in (SOURCE / "core").glob("*.py")}
    assert {path: modules for path, modules in extra.items() if modules} == {}


def test_files_and_functions_are_short() -> None:
    long = set()
    for path in CODE:
        text = path.read_text(encoding="utf-8")
        if len(text.splitlines()) > MAX_FILE_LINES:
            long.add(name(path))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                if node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES:
                    long.add(f"{name(path)}:{node.name}")
    assert long == set(TOO_LONG), "split them, or give the reason in TOO_LONG; drop what is over"


def test_each_source_file_has_its_test() -> None:
    sources = [path.relative_to(SOURCE) for path in SOURCE.rglob("*.py")]
    bare = {
        path.as_posix() for path in sources if path.name != "__init__.py" and not mirrors_of(path)
    }
    assert bare == set(NO_MIRROR), "write the test or give the reason, drop what is over"


def mirrors_of(path: Path) -> list[Path]:
    """test_name.py, or test_name_of_a_part.py."""
    folder = ROOT / "tests" / path.parent
    return [*folder.glob(f"test_{path.stem}.py"), *folder.glob(f"test_{path.stem}_*.py")]


def test_tests_mirror_a_source_file() -> None:
    def known(path: Path) -> bool:
        source = SOURCE / path.parent / path.name.removeprefix("test_")
        stem = source.stem
        prefixes = [stem[:i] for i in range(len(stem), 0, -1) if i == len(stem) or stem[i] == "_"]
        return any(source.with_name(f"{prefix}.py").exists() for prefix in prefixes)

    folders = [path for path in (ROOT / "tests").iterdir() if (SOURCE / path.name).is_dir()]
    tests = [path.relative_to(ROOT / "tests") for f in folders for path in f.rglob("test_*.py")]
    strays = {path.as_posix() for path in tests if not known(path)} - NO_SOURCE.keys()
    assert strays == set(), "name it after a source file, suffixes are fine"


NO_SOURCE = {
    "cli/test_main.py": "the program as a whole",
    "engine/test_mix.py": "the same tokens for every mix of features",
    "engine/test_mix_adapters.py": "the same for adapters",
    "engine/test_mix_ranks.py": "the same for tensor parallelism",
}
"""Test files that belong to no single source file -> what they test."""


REGISTRIES = [value for value in vars(registry).values() if isinstance(value, registry.Registry)]


@pytest.mark.parametrize(
    ("table", "entry"),
    [(table, entry) for table in REGISTRIES for entry in table.names],
    ids=lambda value: getattr(value, "kind", value),
)
def test_registry_entry_resolves(table: registry.Registry, entry: str) -> None:
    assert callable(table.load(entry))


@pytest.mark.parametrize("item", COMMANDS, ids=lambda item: " ".join(item.words))
def test_command_resolves(item: Command) -> None:
    module, function = item.target.split(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_help_is_light() -> None:
    loaded = loaded_by("from penstock.cli import main; main(['--help'])")
    assert "penstock.settings" in loaded
    assert (
        loaded & {"torch", "numpy", "fastapi", "zmq", "penstock.cli.serve", "penstock.llm"} == set()
    )


def test_the_api_process_is_light() -> None:
    """Two cores: the API must start while the engine's process loads torch, and leave it room."""
    loaded = loaded_by("import penstock.server.app")
    assert loaded & {"torch", "numpy", "transformers", "huggingface_hub"} == set()


def test_core_and_config_load_nothing_heavy() -> None:
    loaded = loaded_by("import penstock.core.scheduler, penstock.config")
    assert loaded & {"torch", "numpy", "asyncio", "logging", "cyclopts", "rich"} == set()


def test_no_file_names_a_machine_path() -> None:
    """Paths of the machine that wrote a file mean nothing in a clone."""
    pattern = re.compile(r"(?<![\w.~])/(work|root|home)/")
    texts = [*CODE, *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "pyproject.toml"]
    marked = [name(path) for path in texts if pattern.search(path.read_text(encoding="utf-8"))]
    assert marked == []
