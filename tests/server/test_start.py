from __future__ import annotations

import re

from penstock.server.start import Start
from tests.llm.fake_client import FakeClient


def test_the_stages_add_up() -> None:
    info = FakeClient(lambda _: []).info
    info.stages_s = {"load weights": 0.0, "warm up": 0.0}
    info.notes = ["attention backend torch: the only one"]
    report = Start().report(info, "http://127.0.0.1:8000")
    seconds = [float(s) for s in re.findall(r"([\d.]+) s$", report, re.MULTILINE)]
    assert len(seconds) == 5
    assert abs(sum(seconds[:-1]) - seconds[-1]) < 0.05
    assert "64 blocks of 16 tokens" in report
    assert info.notes[0] in report
    assert report.endswith("Serving at http://127.0.0.1:8000/v1\n")
