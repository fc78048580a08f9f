from __future__ import annotations

import json
import subprocess
import sys

from penstock.report.machine import command_line, machine_info


def test_the_machine_is_told_as_json() -> None:
    info = json.loads(json.dumps(machine_info()))
    assert info["cpu"]
    assert info["cores"] >= 1
    assert info["memory_bytes"] > 2**28
    assert "torch" in info["versions"]


def test_nobody_imports_torch_for_it() -> None:
    code = (
        "import sys, penstock.report.machine as m; m.machine_info(); print('torch' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"


def test_the_command_is_told_without_its_key() -> None:
    told = command_line(["/usr/bin/penstock", "bench", "--url", "a b", "--api-key", "k1", "-x"])
    assert told == "penstock bench --url 'a b' --api-key KEY -x"
    assert command_line(["penstock", "--api-key=k1"]) == "penstock --api-key=KEY"
