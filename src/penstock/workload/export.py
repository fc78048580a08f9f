"""The same load for other generators: their own input files, and the command that reads them.

Formats as of guidellm 0.7 (`kind=mooncake` traces, times in seconds), AIPerf 0.1 to 0.13
(`mooncake_trace` with a fixed schedule, times in milliseconds) and inference-perf 0.6
(`trace_replay` of an Azure CSV). What a tool cannot express is told, not dropped in silence.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from penstock.errors import ConfigError
from penstock.workload.definition import Workload
from penstock.workload.prefixes import block_ids
from penstock.workload.sessions import TimedRequest

BLOCK_TOKENS = 512
TOOLS = ("guidellm", "aiperf", "inference-perf")


@dataclass(frozen=True, slots=True)
class Export:
    """Files by name, the command to run in their folder, and what the tool leaves out."""

    files: dict[str, str]
    command: str
    notes: tuple[str, ...]


def export(
    workload: Workload, requests: Iterable[TimedRequest], tool: str, url: str, model: str
) -> Export:
    """requests: in order of time, as many as are to be sent. Raises ConfigError for none of them
    and for an unknown tool."""
    found = list(requests)
    if not found:
        cause = "No session begins in this stretch of the window."
        raise ConfigError(cause, cure="Take a longer or a busier one (--start-s, --duration-s).")
    if tool == "guidellm":
        return _guidellm(workload, found, url)
    if tool == "aiperf":
        return _aiperf(workload, found, url, model)
    if tool == "inference-perf":
        return _inference_perf(workload, found, url, model)
    raise ConfigError(f"{tool!r} is no known tool.", cure=f"Use one of {', '.join(TOOLS)}.")


def _common_notes(requests: Sequence[TimedRequest]) -> list[str]:
    notes = []
    if any(request.parents for request in requests):
        notes.append(
            "later turns are sent at times fixed beforehand (answers taking what the SLO allows), "
            "not when the turn before is answered"
        )
    if len({request.region for request in requests}) > 1:
        notes.append("regions are left out")
    return notes


def _mooncake(requests: Sequence[TimedRequest], scale: float, whole: bool) -> str:
    """JSONL rows; block names become small whole numbers in order of their first use."""
    numbers: dict[int, int] = {}
    first = requests[0].at_s
    rows = []
    for request in requests:
        names = block_ids(request.prompt, BLOCK_TOKENS, partial=True)
        at = (request.at_s - first) * scale
        row = {
            "timestamp": round(at) if whole else round(at, 6),
            "input_length": request.input_tokens,
            "output_length": request.output_tokens,
            "hash_ids": [numbers.setdefault(name, len(numbers)) for name in names],
        }
        rows.append(json.dumps(row, separators=(", ", ": ")))
    return "\n".join(rows) + "\n"


_BLOCKS_NOTE = f"prefixes are shared in whole blocks of {BLOCK_TOKENS} tokens"


def _guidellm(workload: Workload, requests: Sequence[TimedRequest], url: str) -> Export:
    command = (
        f"guidellm run --backend kind=openai_http,target={url} "
        "--data kind=mooncake,path=requests.jsonl --profile kind=replay,time_scale=1.0"
    )
    notes = [*_common_notes(requests), _BLOCKS_NOTE, "the SLO is left out: guidellm judges none"]
    return Export({"requests.jsonl": _mooncake(requests, 1.0, False)}, command, tuple(notes))


_AIPERF = {
    "ttft_s": "time_to_first_token",
    "tpot_s": "inter_token_latency",
    "ttlt_s": "request_latency",
}


def _tightest(workload: Workload, names: dict[str, str]) -> dict[str, float]:
    """The strictest limit of each metric that the tool knows, in seconds."""
    limits: dict[str, float] = {}
    for clause in workload.slo:
        if clause.metric in names:
            name = names[clause.metric]
            limits[name] = min(limits.get(name, math.inf), clause.limit_s)
    return limits


def _slo_notes(workload: Workload, names: dict[str, str]) -> list[str]:
    left = sorted({clause.metric for clause in workload.slo} - names.keys())
    notes = [f"the SLO on {', '.join(left)} is left out"] if left else []
    return [*notes, "goodput takes the strictest limit of each metric, without its percentile"]


def _aiperf(workload: Workload, requests: Sequence[TimedRequest], url: str, model: str) -> Export:
    goodput = " ".join(
        f"{name}:{limit * 1000:g}" for name, limit in _tightest(workload, _AIPERF).items()
    )
    streaming = " --streaming" if workload.streaming else ""
    command = (
        f"aiperf profile --model {shlex.quote(model)} --url {url} "
        f"--endpoint-type completions{streaming} --input-file requests.jsonl "
        "--custom-dataset-type mooncake_trace --fixed-schedule "
        f"--fixed-schedule-auto-offset --prompt-input-tokens-block-size {BLOCK_TOKENS}"
        + (f' --goodput "{goodput}"' if goodput else "")
    )
    notes = [*_common_notes(requests), _BLOCKS_NOTE, "times are whole milliseconds"]
    notes += _slo_notes(workload, _AIPERF) if workload.slo else []
    return Export({"requests.jsonl": _mooncake(requests, 1000.0, True)}, command, tuple(notes))


_INFERENCE_PERF = {
    "ttft_s": "ttft",
    "tpot_s": "tpot",
    "itl_s": "itl",
    "ttlt_s": "request_latency",
}


def _inference_perf(
    workload: Workload, requests: Sequence[TimedRequest], url: str, model: str
) -> Export:
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    first, last = requests[0].at_s, requests[-1].at_s
    rows = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    for request in requests:
        moment = begin + timedelta(seconds=request.at_s - first)
        text = moment.strftime("%Y-%m-%d %H:%M:%S.%f")
        rows.append(f"{text},{request.input_tokens},{request.output_tokens}")
    duration = max(1, math.ceil(last - first))
    limits = _tightest(workload, _INFERENCE_PERF)
    trace = {"file": "trace.csv", "format": "AzurePublicDataset"}
    config = {
        "load": {
            "type": "trace_replay",
            "trace": trace,
            "stages": [{"rate": round(len(requests) / duration, 6), "duration": duration}],
        },
        "api": {"type": "completion", "streaming": workload.streaming},
        "server": {"type": "vllm", "model_name": model, "base_url": url, "ignore_eos": True},
        "tokenizer": {"pretrained_model_name_or_path": model},
        "data": {"type": "random", "trace": trace},
        "report": {"goodput": {"constraints": limits}} if limits else {},
    }
    notes = [
        *_common_notes(requests),
        "shared prefixes are left out: its trace replay knows lengths only",
        "times are read in steps of 10 ms",
    ]
    notes += _slo_notes(workload, _INFERENCE_PERF) if workload.slo else []
    files = {
        # YAML 1.2 is a superset of JSON
        "config.yml": json.dumps({k: v for k, v in config.items() if v}, indent=2) + "\n",
        "trace.csv": "\n".join(rows) + "\n",
    }
    command = "inference-perf --config_file config.yml"
    return Export(files, command, tuple(notes))
