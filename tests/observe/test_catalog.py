"""The catalog: names unique and clean, every vLLM name that others read, its page up to date."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from penstock.observe import catalog
from penstock.observe.catalog import CATALOG, Kind, Metric

READ_BY_OTHERS = {
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:prefix_cache_queries",
    "vllm:prefix_cache_hits",
    "vllm:num_preemptions",
    "vllm:prompt_tokens",
    "vllm:generation_tokens",
    "vllm:request_success",
    "vllm:time_to_first_token_seconds",
    "vllm:inter_token_latency_seconds",
    "vllm:request_time_per_output_token_seconds",
    "vllm:e2e_request_latency_seconds",
    "vllm:request_queue_time_seconds",
    "vllm:request_prefill_time_seconds",
    "vllm:request_decode_time_seconds",
    "vllm:request_inference_time_seconds",
    "vllm:iteration_tokens_total",
    "vllm:request_prompt_tokens",
    "vllm:request_generation_tokens",
    "vllm:request_params_max_tokens",
    "vllm:request_params_n",
    "vllm:cache_config_info",
}


def test_the_catalog_is_complete_and_without_doubles() -> None:
    declared = [v for v in vars(catalog).values() if isinstance(v, Metric)]
    assert list(CATALOG) == declared
    catalog.check(CATALOG)
    aliases = {alias for metric in CATALOG for alias in metric.aliases}
    assert aliases >= READ_BY_OTHERS


def test_a_second_declaration_of_a_name_is_refused() -> None:
    stolen = replace(catalog.TTFT_S, name="other")
    with pytest.raises(ValueError, match="vllm:time_to_first_token_seconds is declared by"):
        catalog.check([*CATALOG, stolen])


@pytest.mark.parametrize("metric", CATALOG, ids=lambda metric: metric.name)
def test_each_metric_is_declared_well(metric: Metric) -> None:
    """promtool's rules, but for the colons: help, base units, no suffix that lies."""
    assert re.fullmatch(r"penstock:[a-z][a-z0-9_]*", metric.own_name)
    assert metric.help.endswith(".")
    assert not re.search(r"_(total|count|sum|bucket|ms|milliseconds)$", metric.name)
    assert metric.name.endswith("_seconds") == (metric.unit == "seconds")
    assert metric.name.endswith("_bytes") == (metric.unit == "bytes")
    assert (metric.kind is Kind.HISTOGRAM) == bool(metric.buckets)
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert "le" not in metric.labels
    assert not set(metric.labels) & set(catalog.COMMON_LABELS)


def test_buckets_tell_tokens_of_one_millisecond_apart() -> None:
    near = [bound for bound in catalog.ITL_S.buckets if bound <= 0.002]
    assert near[0] == 0.00025
    assert len(near) >= 8
    assert all(b / a <= 1.7 for a, b in pairwise(near))


def test_the_page_is_up_to_date() -> None:
    page = Path(__file__).parents[2] / "docs" / "metrics.md"
    assert page.read_text(encoding="utf-8") == catalog.render_docs()
