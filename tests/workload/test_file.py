"""Workload files: round trips, and every fault named with line, field and cure, all at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock.errors import ConfigError
from penstock.workload import file
from penstock.workload.archetypes import PRESETS, chatbot

DOCS = Path(__file__).parent.parent.parent / "docs"
TEXT = file.to_toml(chatbot())


@pytest.mark.parametrize("name", PRESETS)
def test_load_and_save_round_trip(name: str) -> None:
    workload = PRESETS[name]()
    assert file.read(file.to_toml(workload)) == workload
    assert file.read(file.to_toml(workload, comments=True)) == workload
    assert file.read(file.to_json(workload)) == workload


def line_of(text: str, part: str) -> int:
    return next(i for i, row in enumerate(text.splitlines(), 1) if part in row)


def change(old: str, new: str) -> str:
    assert old in TEXT
    return TEXT.replace(old, new, 1)


@pytest.mark.parametrize(
    ("old", "new", "field", "words"),
    [
        ("p95_per_s = 9.0\n", "", "arrivals.p95_per_s", "is missing"),
        ("peak_per_s = 20.0\n", "", "arrivals.peak_per_s", "is missing"),
        ("peak_per_s = 20.0", "peak_per_s = 2.0", "arrivals.peak_per_s", "below mean_per_s"),
        ("peak_per_s = 20.0", "peak_per_s = 8.0", "arrivals.p95_per_s", "above peak_per_s"),
        ("mean_per_s = 4.0", "mean_per_s = 0.01", "arrivals.mean_per_s", "between"),
        ("mean_per_s = 4.0", 'mean_per_s = "4"', "arrivals.mean_per_s", "not a number"),
        ("mean_per_s = 4.0", "mean_per_s = -4.0", "arrivals.mean_per_s", "not above 0"),
        ("mean_per_s = 4.0", "mean_per_s = nan", "arrivals.mean_per_s", "not a finite"),
        ("cv = 1.5\n", "", "arrivals.cv", "needs it"),
        ('process = "gamma"', 'process = "poisson"', "arrivals.cv", "belongs to"),
        ('process = "gamma"', 'process = "weibull"', "arrivals.process", "choices"),
        ("peak_per_s", "peek_per_s", "arrivals.peek_per_s", "unknown"),
        ('{ kind = "lognormal", p50 = 180.0, p95 = 1200.0, max = 4000.0 }', "{ mean = 200.0 }",
         "lengths.output_tokens.p50", "only a mean"),
        ("reuse_ideal = 0.7", "reuse_ideal = 0.99", "prefix.reuse_ideal", "between"),
        ("reuse_actual = 0.55", "reuse_actual = 0.8", "prefix.reuse_actual", "above reuse_ideal"),
        ('version = "1.0.0"', 'version = "one"', "version", "three numbers"),
        ('start = "2026-11-02T00:00:00Z"', 'start = "monday"', "window.start", "ISO 8601"),
        ("share = 0.6", "share = 0.5", "regions", "sum to 0.9"),
        ("streaming = true", "streaming = false", "slo[0].metric", "streaming is false"),
        ("limit_s = 0.1\n", "limit_s = 0.01\n", "slo[2].limit_s", "contradicts"),
        ("budget_s = 15.0", "budget_s = 0", "start.budget_s", "not above 0"),
        ('policy = "shed"', 'policy = "shed"\nqueue_max_s = 9', "overload.queue_max_s", "queue"),
        ("[start]\nbudget_s = 15.0\n", "", "start", "is missing"),
        ("token_ids = true", "token_ids = 1", "logging.token_ids", "true or false"),
        ("schema = 1", "schema = 2", "schema", "more than 1"),
        ("parent = \"system\"", "parent = \"sys\"", "prefix.nodes[1].parent", "no node"),
    ],
)  # fmt: skip
def test_each_fault_names_its_field_and_a_cure(old: str, new: str, field: str, words: str) -> None:
    text = change(old, new)
    workload, problems = file.inspect(text, "w.toml")
    assert workload is None
    found = {problem.field: problem for problem in problems}
    assert field in found, problems
    assert words in found[field].cause
    assert found[field].cure
    with pytest.raises(ConfigError, match=r"w\.toml"):
        file.read(text, "w.toml")


def test_lines_are_those_of_the_file() -> None:
    text = change("peak_per_s = 20.0", "peak_per_s = 2.0")
    (problem, *_) = file.inspect(text, "w.toml")[1]
    assert problem.line == line_of(text, "peak_per_s = 2.0")
    assert problem.text("w.toml").startswith(f"w.toml:{problem.line}: arrivals.peak_per_s: is 2")
    text = change("limit_s = 0.1\n", "limit_s = 0.01\n")
    (problem, *_) = file.inspect(text, "w.toml")[1]
    assert problem.line == line_of(text, "limit_s = 0.01")


def test_lines_of_json() -> None:
    data = json.loads(file.to_json(chatbot()))
    data["arrivals"]["peak_per_s"] = 2.0
    data["slo"][1]["limit_s"] = "soon"
    text = json.dumps(data, indent=1)
    found = {problem.field: problem.line for problem in file.inspect(text)[1]}
    assert found["arrivals.peak_per_s"] == line_of(text, '"peak_per_s": 2.0')
    assert found["slo[1].limit_s"] == line_of(text, '"limit_s": "soon"')


def test_all_faults_are_told_at_once() -> None:
    text = TEXT.replace("mean_per_s = 4.0", "mean_per_s = 0").replace("schema = 1\n", "")
    text = text.replace("percentile = 99\n", "percentile = 101\n")
    assert [p.field for p in file.inspect(text)[1]] == [
        "schema",
        "arrivals.mean_per_s",
        "slo[2].percentile",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("[arrivals\n", r"w:1: not TOML"),
        ('{"schema": 1,\n}', r"w:2: not JSON"),
        ("{}", "is empty"),
    ],
)
def test_what_is_no_table_at_all_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        file.inspect(text, "w")


def test_a_workload_of_nothing_names_everything() -> None:
    problems = file.inspect("x = 1")[1]
    fields = {problem.field for problem in problems}
    assert {"x", "schema", "arrivals", "lengths", "slo", "cost", "owner"} <= fields


def test_the_published_schema_is_fresh() -> None:
    assert (DOCS / "workload.schema.json").read_text() == file.render_schema(), "run `make fix`"
