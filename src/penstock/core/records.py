"""What is logged, as plain records: one JSON object a line, its kind under `t`.

`docs/logs.md` is made from these docstrings, and says how to read them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SCHEMA = 1


@dataclass(slots=True)
class Header:
    """First line of each segment: who wrote it, and all that its tokens depend on."""

    schema: int
    start: str
    """of the process: the beginning of the names of its segments"""
    segment: int
    wall_s: float
    """Unix time …"""
    mono_s: float
    """… and the same instant on the clock of step and telemetry records"""
    host: str
    pid: int
    version: str
    """of Penstock"""
    hashes: dict[str, str] = field(default_factory=dict)
    """fingerprints, by what they are of: weights, model_config, tokenizer, template, engine (the
    package's source), config (the options that tokens or times depend on), kernels"""
    config: dict[str, dict[str, Any]] = field(default_factory=dict)
    """every option by section, keys left out"""
    model: dict[str, Any] = field(default_factory=dict)
    """what the engine settled: context, blocks, limits, dtype, kernels, threads …"""
    golden: dict[str, Any] = field(default_factory=dict)
    """what the tokenizer makes of fixed texts: `ids` of one, `bos` (the id), `adds_bos`, `prompt`
    (ids that a generation prompt ends with)"""


@dataclass(slots=True)
class Begin:
    """A request was submitted. Without a later `request` of the same id it was in flight when the
    log ends; a restart says so with a `lost` line."""

    id: str
    call: str
    received_s: float
    num_prompt: int
    n: int
    session: str = ""
    endpoint: str = ""


@dataclass(slots=True)
class Lost:
    """Written by a later start behind a segment whose process is gone: this request never ended."""

    id: str
    received_s: float


@dataclass(slots=True)
class Stop:
    """The process closed its log; `clean` is false when a later start did it in its stead."""

    clean: bool
    lost: int = 0
    """requests that were in flight"""


@dataclass(slots=True)
class Origin:
    """Where a request came from, as far as whoever took it in can tell."""

    call: str = ""
    """id that the client sees; the prompts of one call share it"""
    endpoint: str = ""
    model: str = ""
    """name that the client used"""
    key: str = ""
    """of the API key: its name, or the beginning of its SHA-256"""
    slo_class: str = ""
    stream: bool = False
    parsed_s: float | None = None
    """absolute, monotonic: the body was read and checked"""
    sends: bool = False
    """a reply is written to a socket: the record waits for `sent`"""


@dataclass(slots=True)
class Wait:
    """A stretch in the queue."""

    reason: str
    """`step`: the step under way; `slots`, `tokens`, `blocks`, `background`, `preemption` or
    `result`: what stopped the first in the queue; `prefix`: another one computes the same prefix;
    `adapter`: all slots for adapters are in use"""
    s: float
    behind: str = ""
    """id of the request in front: the queue's first, or the one that runs longest"""


@dataclass(slots=True)
class ChoiceRecord:
    """One of the n answers."""

    index: int
    ids: list[int] | None = None
    """of the output, as far as the reader took it; the stop id included"""
    text: str | None = None
    finish: str | None = None
    """stop, length, abort, timeout, error"""
    stop_reason: str | int | None = None
    num_generated: int = 0
    """ids that the engine made; more than `ids` when a stop string or the reader ended it"""
    text_differs: int | None = None
    """where the text that was sent leaves the text of `ids`; null: nowhere"""
    queued: float | None = None
    """in the engine's queue"""
    scheduled: float | None = None
    """first slot"""
    finished: float | None = None
    """in the engine"""
    delivered: float | None = None
    """its last text was there for the reader"""
    waits: list[Wait] = field(default_factory=list)
    """time without a slot, in order: before the first one and after each preemption"""
    cached: dict[str, int] = field(default_factory=dict)
    """prompt tokens read from a cache at the first slot, by tier"""
    chunks: list[tuple[float, int, int, int]] = field(default_factory=list)
    """prefill: (when it was done, step, first token, tokens)"""
    preempted: list[tuple[float, int, int, str]] = field(default_factory=list)
    """(when, step, computed tokens lost, id of the request that needed the blocks)"""
    resumed: list[tuple[float, int]] = field(default_factory=list)
    """(when it had a slot again, tokens read from the cache)"""
    first_token: float | None = None
    gaps_us: list[int] = field(default_factory=list)
    """microseconds between steps that gave it tokens: first_token plus the sums are their times"""
    steps: list[tuple[int, int]] = field(default_factory=list)
    """those steps, in runs: (first, how many)"""
    burst: list[int] | None = None
    """tokens of each of them; null: one each"""
    engines: list[int] = field(default_factory=list)
    """that served it; more than one when an engine was lost"""
    logprobs: list[float] | None = None
    """of the ids, when the request asked for them"""
    ranks: list[int] | None = None
    """of the ids among all: 1 is the likeliest"""


@dataclass(slots=True)
class RequestRecord:
    """A prompt and its answers, from the first byte in to the last byte out."""

    id: str
    call: str
    start: str
    """of the process that served it: its header has the hashes"""
    received_s: float
    prompt_ids: list[int] | None
    prompt: str | None
    """the text that the ids were made of; null when ids were sent"""
    sampling: dict[str, Any]
    """resolved, as `core.request.Sampling` of choice 0, what is not at its neutral value"""
    seed: int
    given_seed: bool
    """the client chose it"""
    n: int
    params: dict[str, Any]
    """what the request asked of the text: stop strings and the like"""
    choices: list[ChoiceRecord]
    endpoint: str = ""
    model: str = ""
    key: str | None = ""
    slo_class: str = ""
    session: str | None = ""
    priority: int = 0
    stream: bool = False
    salt: str = ""
    """of cache salt and adapter: only equal ones share a cache"""
    adapter: dict[str, str] | None = None
    """its name, folder and digest, where the request chose one"""
    deadline: float | None = None
    parsed: float | None = None
    """body read and checked"""
    admitted: float | None = None
    """a place at the door, and handed to the model"""
    tokenizing: float | None = None
    """a tokenizer thread began with it"""
    tokenized: float | None = None
    submitted: float | None = None
    """handed to the engine"""
    ended: float | None = None
    """its reader has everything, or left"""
    sent: float | None = None
    """the last byte was handed to the socket; equals `ended` where there is none"""
    tokenize_s: float = 0.0
    """time of template and tokenizer"""
    detokenize_s: float = 0.0
    """all time in the detokenizer; most of it lies between tokens"""
    num_prompt: int = 0
    num_output: int = 0
    cached_tokens: int = 0
    preemptions: int = 0
    finish: str = ""
    """of the worst choice: error, timeout, abort, length, stop"""
    engine: int = 0
    """index of the engine that ended it"""
    route: dict[str, Any] | None = None
    """of several engines: candidates, scores and the reason of the choice"""
    error: dict[str, Any] | None = None
    redacted: list[str] = field(default_factory=list)
    lossy: bool = False
    """the log was behind and dropped events of it"""


@dataclass(slots=True)
class Steps:
    """Steps of one engine, a column each: entry i of every list belongs to one step."""

    engine: int
    at: list[float]
    """end, on the monotonic clock"""
    step: list[int]
    step_us: list[int]
    """wall time of the loop's turn"""
    device_us: list[int]
    """inside model and sampler"""
    schedule_us: list[int]
    """deciding: schedule and apply"""
    prefill_tokens: list[int]
    decode_tokens: list[int]
    prefill_rows: list[int]
    running: list[int]
    waiting: list[int]
    held: list[int]
    blocks_free: list[int]
    blocks_cached: list[int]
    blocks_total: int
    preemptions: int
    """since start, at the end of these"""
    leaked_blocks: int
    restarts: int
    more: dict[str, list[float]] = field(default_factory=dict)
    """further times and figures that this engine measures, by name"""


@dataclass(slots=True)
class Device:
    """What a sensor reads of one accelerator, or of the CPU's package; null: it cannot tell."""

    name: str
    temperature_c: float | None = None
    power_w: float | None = None
    power_cap_w: float | None = None
    clock_mhz: float | None = None
    clock_max_mhz: float | None = None
    throttle: list[str] | None = None
    """reasons that hold clocks down just now"""
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    utilisation: float | None = None
    """share of time in which a kernel ran"""
    ecc_errors: int | None = None
    xid: int | None = None


@dataclass(slots=True)
class EngineState:
    engine: int
    step: int
    age_s: float
    """since it last said anything"""
    running: int
    waiting: int


@dataclass(slots=True)
class Telemetry:
    """The machine, every few seconds."""

    at: float
    """monotonic"""
    cpu_s: dict[str, float]
    """CPU time since start, by process"""
    rss_bytes: dict[str, int]
    cpu_share: float | None
    """of all cores of the host, since the last record"""
    cpu_mhz: float | None
    load_1m: float | None
    memory_available_bytes: int
    open_requests: int
    engines: list[EngineState]
    gpus: list[Device] | None
    """null: no GPU, or no way to ask it"""
    cpu: Device | None = None
    """null: the host shows no sensors"""


@dataclass(slots=True)
class Note:
    """Something else that whoever reads the log must know."""

    at: float
    """monotonic"""
    kind: str
    """dropped, canary, engine_lost, rejected …"""
    text: str
    data: dict[str, Any] = field(default_factory=dict)


KINDS: dict[str, type] = {
    "header": Header,
    "begin": Begin,
    "request": RequestRecord,
    "steps": Steps,
    "telemetry": Telemetry,
    "note": Note,
    "lost": Lost,
    "stop": Stop,
}
"""What stands under `t` -> the record."""
