"""The sink: what events and statistics make of the metrics, read back from the text."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from penstock.config import LogConfig
from penstock.core.events import (
    Blocked,
    Chunk,
    Event,
    Finished,
    Preempted,
    Queued,
    Scheduled,
    TokensOut,
    WaitReason,
)
from penstock.core.request import FinishReason
from penstock.engine.client import EngineStats, ModelInfo
from penstock.errors import ContextLengthError
from penstock.observe.catalog import CATALOG
from penstock.observe.metrics import Metrics
from penstock.observe.requestlog import RequestLog


class Page:
    """What a scraper sees."""

    def __init__(self, metrics: Metrics) -> None:
        self.text = metrics.render().decode()
        self.families = {f.name: f for f in text_string_to_metric_families(self.text)}
        self._samples = {
            (s.name, frozenset(s.labels.items())): s.value
            for family in self.families.values()
            for s in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        named = {"model_name": "demo", "engine": "0", **labels}
        own = self._samples["penstock:" + name, frozenset(named.items())]
        alias = self._samples.get(("vllm:" + name, frozenset(named.items())), own)
        assert own == alias
        return own

    def histogram(self, name: str) -> tuple[float, float]:
        """(number of observations, their sum)"""
        return self(name + "_count"), self(name + "_sum")


def finished(
    id: str,
    at: float,
    reason: FinishReason,
    num_output: int,
    error: dict[str, object] | None = None,
) -> Finished:
    return Finished(id, at, reason, 10, num_output, cached_tokens=4, preemptions=0, error=error)


def served() -> Metrics:
    """Two requests that run together; `b` is preempted once and then aborted."""
    metrics = Metrics("demo")
    steps: list[list[Event]] = [
        [
            Queued("a", 1.0, 10, arrived=0.5),
            Queued("b", 1.0, 20),
            Scheduled("a", 2.0, 1, 4, resumed=False),
            Scheduled("b", 2.0, 1, 0, resumed=False),
        ],
        [TokensOut("a", 3.0, 1, [7]), TokensOut("b", 3.0, 1, [7])],
        [TokensOut("a", 3.25, 2, [7, 8]), TokensOut("b", 3.25, 2, [7])],
        [Preempted("b", 3.3, 3, lost_tokens=21, by="a"), TokensOut("a", 3.5, 3, [9])],
        [finished("a", 3.5, FinishReason.STOP, 4), Scheduled("b", 3.6, 4, 16, resumed=True)],
        [TokensOut("b", 4.25, 5, [1])],
        [finished("b", 5.0, FinishReason.ABORT, 3)],
    ]
    for number, events in enumerate(steps, start=1):
        metrics(events, EngineStats(at=0.0, step=number))
    return metrics


def test_the_times_of_requests() -> None:
    page = Page(served())
    assert page.histogram("time_to_first_token_seconds") == (2, 2.5 + 2.0)
    assert page.histogram("request_intake_time_seconds") == (2, 0.5)
    assert page.histogram("request_queue_time_seconds") == (2, 2.0)
    assert page.histogram("request_prefill_time_seconds") == (2, 2.0)
    assert page.histogram("request_decode_time_seconds") == (2, 0.5 + 1.25)
    assert page.histogram("request_inference_time_seconds") == (2, 1.5 + 2.25)
    assert page.histogram("e2e_request_latency_seconds") == (2, 3.0 + 4.0)
    assert page.histogram("request_time_per_output_token_seconds") == (2, 0.5 / 3 + 2.0 / 2)
    assert page.histogram("request_longest_stall_seconds") == (2, 0.25 + 1.0)
    assert page.histogram("inter_token_latency_seconds") == (4, 0.25 * 3 + 1.0)
    assert page("inter_token_latency_seconds_bucket", le="0.25") == 3
    assert page("inter_token_latency_seconds_bucket", le="0.2") == 0


def test_the_tokens_of_requests() -> None:
    page = Page(served())
    assert page("prompt_tokens_total") == 30
    assert page("generation_tokens_total") == 7
    assert page("prefill_cached_tokens_total") == 20
    assert page("preempted_tokens_total") == 21
    assert page.histogram("request_prompt_tokens") == (2, 20)
    assert page.histogram("request_generation_tokens") == (2, 7)


def test_how_requests_ended() -> None:
    metrics = served()
    error = ContextLengthError("too long").to_dict()
    metrics([finished("c", 6.0, FinishReason.ERROR, 0, error)], EngineStats(at=6.0))
    page = Page(metrics)
    ends = {r.value: page("request_success_total", finished_reason=r.value) for r in FinishReason}
    assert ends == {"stop": 1, "abort": 1, "error": 1, "length": 0, "timeout": 0}
    assert page("request_errors_total", code="context_length_exceeded") == 1
    assert page("requests_cancelled_total") == 1
    assert page("e2e_request_latency_seconds_count") == 2


def test_statistics_of_steps() -> None:
    metrics = Metrics("demo")
    state = EngineStats(
        at=1.0, running=3, waiting=2, held=1, blocks_total=100, blocks_free=20, blocks_cached=55,
        step=1, step_s=0.02, device_s=0.015, schedule_s=0.001, prefill_tokens=64, decode_tokens=2,
        prefix_queries=500, prefix_hits=320, preemptions=4, leaked_blocks=0,
    )  # fmt: skip
    metrics([], state)
    metrics([], state)
    metrics([], EngineStats(at=2.0, blocks_total=100, blocks_free=100, prefix_queries=500))
    page = Page(metrics)
    assert page.histogram("step_duration_seconds") == (2, 0.04)
    assert page.histogram("step_device_seconds") == (2, 0.03)
    assert page.histogram("step_schedule_seconds") == (2, 0.002)
    assert page.histogram("iteration_tokens") == (2, 132)
    assert page.histogram("step_prefill_tokens") == (2, 128)
    assert page.histogram("step_decode_tokens") == (2, 4)
    assert (page("steps_total"), page("prefill_tokens_total")) == (2, 128)
    assert page("decode_tokens_total") == 4
    assert page("prefix_cache_queries_total") == 500
    assert page("num_requests_running") == page("kv_cache_usage_perc") == 0
    assert 'vllm:iteration_tokens_total_sum{engine="0",model_name="demo"} 132.0' in page.text


def test_the_state_of_the_pool() -> None:
    metrics = Metrics("demo")
    metrics([], EngineStats(1.0, 3, 2, 1, 100, 20, 55, preemptions=4, leaked_blocks=2))
    page = Page(metrics)
    assert page("kv_cache_usage_perc") == 0.25
    assert page("num_requests_running") == 3
    assert (page("num_requests_waiting"), page("num_requests_held")) == (3, 1)
    assert (page("kv_blocks"), page("kv_blocks_free"), page("kv_blocks_cached")) == (100, 20, 55)
    assert (page("num_preemptions_total"), page("kv_blocks_leaked")) == (4, 2)


def test_what_the_server_tells() -> None:
    metrics = Metrics("demo")
    info = ModelInfo(100, 2048, (0,), 16, 512, 8, 256, "bfloat16", "cpu", "Llama")
    metrics.ready(info)
    metrics.requested(n=3, max_tokens=100)
    metrics.requested(n=1, max_tokens=None)
    metrics.rejected("queue_full")
    metrics.http_error("invalid_field", 400)
    metrics.tokenized(0.25)
    metrics.detokenized(0.5)
    page = Page(metrics)
    shape = {"block_size": "16", "num_gpu_blocks": "512", "max_model_len": "2048"}
    assert page("cache_config_info", dtype="bfloat16", **shape) == 1
    assert page.histogram("request_params_n") == (2, 4)
    assert page.histogram("request_params_max_tokens") == (1, 100)
    assert page("requests_rejected_total", reason="queue_full") == 1
    assert page("http_errors_total", code="invalid_field", status="400") == 1
    assert page.histogram("tokenize_seconds") == (1, 0.25)
    assert page.histogram("detokenize_seconds") == (1, 0.5)


def test_memory_of_processes_that_live() -> None:
    metrics = Metrics("demo")
    metrics.watch_processes(lambda: {"engine": os.getppid(), "gone": 2**22 + 1})
    page = Page(metrics)
    assert page("process_resident_memory_bytes", process="api") > 10**7
    assert page("process_resident_memory_bytes", process="engine") > 0
    assert 'process="gone"' not in page.text


def test_engines_stand_side_by_side() -> None:
    """A request that moves has one life: queued at one engine, finished at the other."""
    metrics = Metrics("demo")
    metrics([Queued("a", 1.0, 10)], EngineStats(at=1.0, engine=0, running=1, restarts=1))
    tokens = TokensOut("a", 3.0, 1, [5])
    end = finished("a", 3.0, FinishReason.LENGTH, 1)
    metrics([tokens, end], EngineStats(at=3.0, engine=1, running=2, step=1, decode_tokens=1))
    page = Page(metrics)
    assert page("num_requests_running", engine="0") == 1
    assert page("num_requests_running", engine="1") == 2
    assert page("generation_tokens_total", engine="0") == 0
    assert page("generation_tokens_total", engine="1") == 1
    assert page("engine_restarts_total", engine="0") == 1
    assert page("e2e_request_latency_seconds_sum", engine="1") == 2.0
    assert metrics.num_live == 0


def test_every_name_of_the_catalog_is_on_the_page() -> None:
    page = Page(served())
    for metric in CATALOG:
        for name in metric.names:
            assert name in page.families


def test_a_name_that_the_registry_has_is_refused() -> None:
    registry = CollectorRegistry()
    Metrics("demo", registry)
    with pytest.raises(ValueError, match="Duplicated"):
        Metrics("demo", registry)


def test_requests_leave_nothing_behind() -> None:
    """A request's state goes with its end, also when it never ran or was refused."""
    metrics = served()
    metrics([Queued("q", 6.0, 1)], EngineStats(at=6.0))
    assert metrics.num_live == 1
    ends: list[Event] = [finished("q", 6.5, FinishReason.TIMEOUT, 0)]
    metrics([*ends, finished("never", 6.5, FinishReason.ERROR, 0)], EngineStats(at=6.5))
    assert metrics.num_live == 0


def test_why_the_queue_stood_and_who_was_busy() -> None:
    metrics = Metrics("demo")
    steps: list[list[Event]] = [
        [Blocked(10.0, WaitReason.SLOTS, "a", "b"), Chunk("a", 10.0, 1, 0, 8)],
        [Blocked(12.0, WaitReason.BLOCKS, "a", "b")],
        [Blocked(12.5, None)],
        [Blocked(20.0, WaitReason.SLOTS, "c", "d")],
    ]
    for at, events in enumerate(steps):
        working = {"step": at, "decode_tokens": 1, "step_s": 0.5, "device_s": 0.25}
        metrics(events, EngineStats(at=10.0 + at, **working))
    page = Page(metrics)
    assert page("queue_blocked_seconds_total", reason="slots") == 2.0
    assert page("queue_blocked_seconds_total", reason="blocks") == 0.5
    assert page("prefill_chunks_total") == 1
    assert page("engine_uptime_seconds") == 3.0
    assert page("engine_working_seconds_total") == 2.0
    assert page("device_busy_seconds_total") == 1.0


def test_the_log_and_the_canary_report(tmp_path: Path) -> None:
    metrics, log = Metrics("demo"), RequestLog(LogConfig(log_dir=str(tmp_path)), {"version": "0"})
    log.note("test", "x")
    log.close()
    metrics.watch_log(log)
    metrics.canary(True)
    metrics.canary(False)
    page = Page(metrics)
    assert page("log_written_bytes_total") == log.written_bytes > 0
    assert (page("log_failed"), page("log_dropped_total"), page("log_queue_depth")) == (0, 0, 0)
    assert page("canary_runs_total", result="failed") == 1
