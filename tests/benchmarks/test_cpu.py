"""What the comparison on a CPU counts and concludes, on lines made by hand."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.cpu import meter
from benchmarks.cpu.engines import BY_NAME, ENGINES, INT8, Place
from benchmarks.cpu.plot import draw
from benchmarks.cpu.protocol import ROOT, Child
from benchmarks.cpu.summary import (
    BARS,
    BEGIN,
    END,
    HTTP,
    Figures,
    Spread,
    bits_per_weight,
    insert,
    markdown,
    rate,
    token_bytes,
    token_operations,
    verdicts,
    write,
)
from benchmarks.cpu.w8a8 import quantize
from benchmarks.cpu.works import WORKS, work

BASELINE = {
    "limits": {"bandwidth": 40e9, "bf16": 400e9, "int8": 800e9},
    "figures": {"q06": {"vLLM w8a8": {"A": 20, "C": 70}}},
}
MACHINE = {"date": "2026-01-02", "cpu": "a CPU", "cpu_id": "x", "cores": 2, "memory_bytes": 2**34}
QUIET = {"steal": 0.0, "foreign": 0.0, "load": 0.1}


def test_the_works_are_those_of_the_baseline() -> None:
    sizes = {name: work(name, 0, 50_000) for name in WORKS}
    assert (sizes["C"].num_input, sizes["C"].num_output) == (9546, 3012)
    assert (sizes["Dcold"].num_input, sizes["Dcold"].num_output) == (32 * 544, 32 * 32)
    assert [len(sizes[name].requests) for name in "ABH"] == [1, 1, 16]
    shared = {tuple(prompt[:512]) for prompt, _ in sizes["Dwarm"].requests}
    assert shared == {tuple(sizes["Dwarm"].before[0][0])}
    assert not sizes["Dcold"].before


def test_no_round_repeats_a_prompt_and_lengths_stay() -> None:
    first, second = work("C", 0, 50_000), work("C", 1, 50_000)
    assert first == work("C", 0, 50_000)
    assert not {tuple(p[:16]) for p, _ in first.requests} & {
        tuple(p[:16]) for p, _ in second.requests
    }
    assert [n for _, n in first.requests] == [n for _, n in second.requests]
    assert max(max(p) for p, _ in work("C", 0, 512).requests) < 512


def lines(**changes: Any) -> list[dict[str, Any]]:
    """Two rounds of q06: ours makes 60 and 66 tokens/s alone, OpenVINO int8 30 and 40."""
    made: list[dict[str, Any]] = [{"kind": "run", "command": "the command", "machine": MACHINE}]
    for round, (ours, theirs) in enumerate([(60.0, 30.0), (66.0, 40.0)]):
        base = {"kind": "figure", "shape": "q06", "round": round} | QUIET
        for name, speed in ((INT8, ours), ("OpenVINO int8", theirs)):
            line = base | {"engine": name, "work": "A", "tokens": 128, "host_share": 0.04}
            made.append(line | {"seconds": 1.0 + 127 / speed, "first_s": 1.0})
        for name, seconds in (("H", 10.0), (HTTP, 10.5)):
            line = base | {"engine": INT8, "work": name, "tokens": 2048, "seconds": seconds}
            made.append(line | {"first_s": 0.1, "host_share": 0.06} | changes)
        limits = {"bandwidth": 50e9, "bf16": 420e9, "int8": 840e9}
        made.append({"kind": "limits", "shape": "q06", "round": round} | limits | QUIET)
    return made


def test_rates_are_of_the_tokens_that_a_work_is_about() -> None:
    line = {"tokens": 128, "input": 1000, "seconds": 3.0, "first_s": 1.0}
    assert rate(line | {"work": "A"}) == 127 / 2
    assert rate(line | {"work": "B"}) == 1000 / 3
    assert rate(line | {"work": "C"}) == 128 / 3


def test_verdicts_use_the_lower_end_of_ratios_within_rounds() -> None:
    found = {v.what: v for v in verdicts(Figures(lines(), BASELINE))}
    a = found["A, int8"]
    assert "OpenVINO int8" in found["A, int8"].other or "read limit" in a.other
    against = [v for v in verdicts(Figures(lines(), BASELINE)) if "OpenVINO" in v.other]
    assert against[0].ratio.values == {0: pytest.approx(2.0), 1: pytest.approx(1.65)}
    assert against[0].holds
    assert found["16 streams over HTTP"].ratio.low == pytest.approx(10 / 10.5)
    assert found["host share, 1 streams"].holds
    assert not found["host share, 16 streams"].holds


def test_a_peer_that_did_not_run_counts_scaled_and_marked() -> None:
    figures = Figures(lines(), BASELINE)
    scaled = figures.rate("q06", "vLLM w8a8", "A")
    assert scaled is not None
    assert scaled.median == 20 * 50 / 40
    assert scaled.text() == "25 *"
    assert Spread({0: 50.0, 1: 75.0}).over(scaled).values == {0: 2.0, 1: 3.0}
    of_products = figures.rate("q06", "vLLM w8a8", "C")
    assert of_products is not None
    assert of_products.median == 70 * 840 / 800
    assert figures.rate("q06", "llama.cpp Q8_0", "A") is None


def test_limits_are_of_bytes_and_operations_counted_by_hand() -> None:
    layers, head = 440_401_920, 151_936 * 1024
    int8 = BY_NAME[INT8]
    assert token_bytes("q06", int8) == pytest.approx(1.004 * (layers + head))
    share = Figures(lines(), BASELINE).limit_share("q06", int8, "A")
    assert share is not None
    assert share.values[0] == pytest.approx(60 * 1.004 * (layers + head) / 50e9)
    attention = 28 * 4 * 16 * 128 * (1024 * 1025 // 2)
    assert token_operations("q06") == pytest.approx(
        (2 * layers * 1024 + 2 * head + attention) / 1024
    )
    assert bits_per_weight("q06", BY_NAME["llama.cpp Q8_0"]) == 8.5


def test_the_table_says_all_and_goes_between_the_markers() -> None:
    figures = Figures([*lines(), {"kind": "engine", "shape": "q06", "engine": "X", "failed": "!"}])
    table = markdown(figures)
    for part in ("**q06**", "63 [60-66]", "Failed: X on q06", "| missed |", "| met |"):
        assert part in table
    page = f"before {BEGIN} old {END} after"
    assert insert(page, "new") == f"before {BEGIN}\nnew\n{END} after"
    with pytest.raises(ValueError, match="bench-cpu"):
        insert("a page", "new")
    assert BEGIN in (ROOT / "README.md").read_text()


def test_penstocks_steps_stand_against_their_floor() -> None:
    sums = {"steps": 4, "bytes_moved": 4e8, "operations": 8e9, "floor_s": 0.02, "step_s": 0.04}
    table = markdown(Figures(lines(**sums), BASELINE))
    assert f"| {INT8} H | 100 | 2.00 | 5.00 | 10.00 | 50% | 6.0% |" in table


def test_disturbed_lines_are_counted() -> None:
    assert "4 of 8 lines" in markdown(Figures(lines(foreign=0.5), BASELINE))


def test_everything_is_written(tmp_path: Path) -> None:
    write(lines(), tmp_path, None)
    assert json.loads((tmp_path / "summary.json").read_text())["verdicts"]
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    draw(Figures(lines(), BASELINE), tmp_path / "again.png")


def test_every_peer_has_a_runner_and_a_place_in_the_bars(tmp_path: Path) -> None:
    (tmp_path / "llamacpp" / "llama_cpp_python-1" / "vendor" / "llama.cpp").mkdir(parents=True)
    place = Place(tmp_path, Path("checkpoints/q06"))
    for engine in ENGINES:
        module = engine.command(place)[2]
        assert (ROOT / f"{module.replace('.', '/')}.py").exists()
        assert engine.installed(tmp_path) == (not engine.peer)
        if engine.model(place) != place.source:
            assert engine.prepare(place)
    assert {bar.ours for bar in BARS} == {e.name for e in ENGINES if not e.peer}


ECHO = """
import sys
from benchmarks.cpu.protocol import serve
def start():
    print("noise of a library")
    return run, {"version": "1"}
def run(requests):
    print("more noise")
    if not requests:
        raise SystemExit("the engine gave up")
    return {"seconds": 1.0, "first_s": 0.5, "tokens": sum(count for _, count in requests)}
serve(start)
"""


def test_an_engine_is_talked_to_stopped_and_ended(tmp_path: Path) -> None:
    child = Child([sys.executable, "-c", ECHO], tmp_path / "log")
    try:
        assert child.facts == {"version": "1"}
        stopped = os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        assert stopped is not None
        assert stopped.si_status == signal.SIGSTOP
        child.wake()
        assert child.do([([1, 2], 3), ([4], 5)])["tokens"] == 8
        before = meter.read([child.pid])
        with pytest.raises(RuntimeError, match="the engine gave up"):
            child.do([])
        shares = meter.shares(before, meter.read([child.pid]))
        assert 0 <= shares["foreign"] <= 1
    finally:
        child.close()
    assert not Path(f"/proc/{child.pid}").exists()
    assert "noise of a library" in (tmp_path / "log").read_text()


def test_w8a8_keeps_what_is_no_projection() -> None:
    w = torch.randn(4, 6).bfloat16()
    made = quantize({"a.q_proj.weight": w, "norm.weight": w[0]})
    assert made["a.q_proj.weight"].dtype == torch.int8
    scale = made["a.q_proj.weight_scale"]
    assert (made["a.q_proj.weight"] * scale - w.float()).abs().max() <= scale.max() / 2 * 1.01
    assert torch.equal(made["norm.weight"], w[0])


@pytest.mark.slow
def test_the_whole_run_on_a_tiny_model(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.cpu.run", "--tiny", "--rounds", "1"]
    command += ["--out", str(tmp_path), "--peers", str(tmp_path), "--threads", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert "Penstock int8" in (tmp_path / "table.md").read_text()
