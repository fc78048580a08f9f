"""A Grafana dashboard over our metrics, made from the catalog's names so that none can go stale.

Import docs/grafana.json and choose the Prometheus data source; the variables select models and
engines.
"""

from __future__ import annotations

import json
from typing import Any

from penstock.observe import catalog as c
from penstock.observe.catalog import Kind, Metric

WHERE = '{model_name=~"$model",engine=~"$engine"}'
WIDTH, HEIGHT, ACROSS = 8, 8, 3

Lines = list[tuple[str, str]]


def rate(metric: Metric, by: str = "") -> str:
    """Of a counter, a second; summed, or by one of its labels."""
    assert metric.kind is Kind.COUNTER
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping}(rate({metric.own_name}_total{WHERE}[$__rate_interval]))"


def level(metric: Metric) -> str:
    """Of a gauge, over all engines."""
    assert metric.kind is Kind.GAUGE
    return f"sum({metric.own_name}{WHERE})"


def quantiles(metric: Metric) -> Lines:
    """p50, p95 and p99 of a histogram over all engines."""
    assert metric.kind is Kind.HISTOGRAM
    buckets = f"sum by (le) (rate({metric.own_name}_bucket{WHERE}[$__rate_interval]))"
    return [
        (f"p{round(100 * part)}", f"histogram_quantile({part}, {buckets})")
        for part in (0.5, 0.95, 0.99)
    ]


def mean(metric: Metric) -> str:
    """Of a histogram's observations."""
    assert metric.kind is Kind.HISTOGRAM
    total = f"sum(rate({metric.own_name}_sum{WHERE}[$__rate_interval]))"
    return f"{total} / sum(rate({metric.own_name}_count{WHERE}[$__rate_interval]))"


def share(part: Metric, whole: Metric) -> str:
    return f"{rate(part)} / {rate(whole)}"


PANELS: tuple[tuple[str, str, Lines], ...] = (
    ("Requests that ended", "reqps", [("{{finished_reason}}", rate(c.SUCCESS, "finished_reason"))]),
    ("Running and waiting", "short", [
        ("running", level(c.RUNNING)), ("waiting", level(c.WAITING)),
    ]),
    ("Refused and failed", "reqps", [
        ("refused: {{reason}}", rate(c.REJECTED, "reason")),
        ("error: {{code}}", rate(c.HTTP_ERRORS, "code")),
    ]),
    ("Time to first token", "s", quantiles(c.TTFT_S)),
    ("Time between tokens", "s", quantiles(c.ITL_S)),
    ("Whole request", "s", quantiles(c.E2E_S)),
    ("Time in the queue", "s", quantiles(c.QUEUE_S)),
    ("Longest stall of a request", "s", quantiles(c.STALL_S)),
    ("Tokens", "short", [
        ("prefill", rate(c.PREFILL_TOKENS)),
        ("spared by the prefix cache", rate(c.CACHED_TOKENS)),
        ("decode", rate(c.DECODE_TOKENS)),
        ("lost to preemption", rate(c.LOST_TOKENS)),
    ]),
    ("Tokens a step", "short", [
        ("prefill", mean(c.STEP_PREFILL)), ("decode", mean(c.STEP_DECODE)),
    ]),
    ("Time of a step", "s", [
        ("step", mean(c.STEP_S)), ("in the model", mean(c.DEVICE_S)),
        ("deciding", mean(c.SCHEDULE_S)),
    ]),
    ("Prefix hit rate", "percentunit", [("hits", share(c.PREFIX_HITS, c.PREFIX_QUERIES))]),
    ("KV blocks", "short", [
        ("all", level(c.BLOCKS_TOTAL)), ("free", level(c.BLOCKS_FREE)),
        ("cached", level(c.BLOCKS_CACHED)),
    ]),
    ("Preemptions and restarts", "ops", [
        ("preemptions", rate(c.PREEMPTIONS)), ("engine restarts", rate(c.RESTARTS)),
    ]),
    ("Memory", "bytes", [("{{process}}", f"sum by (process) ({c.RSS.own_name})")]),
)  # fmt: skip


def dashboard() -> dict[str, Any]:
    """Grafana's JSON model."""
    return {
        "title": "Penstock",
        "uid": "penstock",
        "schemaVersion": 39,
        "editable": True,
        "refresh": "5s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {
            "list": [
                {
                    "name": "source",
                    "label": "Data source",
                    "type": "datasource",
                    "query": "prometheus",
                },
                _variable("model", "model_name"),
                _variable("engine", "engine"),
            ]
        },
        "panels": [_panel(number, *panel) for number, panel in enumerate(PANELS)],
    }


def _variable(name: str, label: str) -> dict[str, Any]:
    query = f"label_values({c.RUNNING.own_name}, {label})"
    return {
        "name": name,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }


def _panel(number: int, title: str, unit: str, lines: Lines) -> dict[str, Any]:
    return {
        "id": number + 1,
        "title": title,
        "type": "timeseries",
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "gridPos": {
            "x": number % ACROSS * WIDTH,
            "y": number // ACROSS * HEIGHT,
            "w": WIDTH,
            "h": HEIGHT,
        },
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + index), "legendFormat": name, "expr": expr}
            for index, (name, expr) in enumerate(lines)
        ],
    }


def render() -> str:
    """docs/grafana.json."""
    return json.dumps(dashboard(), indent=2) + "\n"
