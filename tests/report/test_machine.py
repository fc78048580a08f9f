from __future__ import annotations

import json
import subprocess
import sys

from penstock.report.machine import machine_info


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
