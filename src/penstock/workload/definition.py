"""The workload file: what an application asks for, as frozen dataclasses.

One file drives the load generator, the planner, the simulator, the acceptance gate and the cost
report. Times in seconds, lengths in tokens, rates per second; every rate and every length is a
distribution. docs/workload.md explains it, docs/workload.schema.json is made from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from penstock.workload.fields import Problem, spec
from penstock.workload.lengths import Distribution

SCHEMA = 1
ARCHETYPES = ("chatbot", "background_agent", "data_processor")
MERITS = ("output_tokens_per_s_per_user", "ttlt_p95_s", "mtok_per_usd")
METRICS = ("ttft_s", "tpot_s", "itl_s", "ttlt_s", "queue_s")
CLASSES = ("interactive", "agent", "batch")


@dataclass(frozen=True, slots=True)
class Window:
    """The stretch of time that the file describes."""

    start: str = spec("begin, ISO 8601, as 2026-11-02T00:00:00Z")
    duration_s: float = spec("length", unit="seconds", above=0)

    def problems(self) -> Iterator[Problem]:
        try:
            datetime.fromisoformat(self.start)
        except ValueError:
            cause = f"is {self.start!r}: not a date and time of ISO 8601."
            yield Problem("start", cause, "Write it like 2026-11-02T00:00:00Z.")


@dataclass(frozen=True, slots=True)
class Model:
    """Which model answers."""

    name: str = spec("folder or name of the model")
    precision: str = spec(
        "of its weights", default="bf16",
        choices=("fp32", "bf16", "fp16", "fp8", "int8", "int4", "fp4"),
    )  # fmt: skip
    lora: str | None = spec("adapter", default=None)


@dataclass(frozen=True, slots=True)
class QualityGate:
    """An evaluation that must pass before a change is deployed."""

    eval: str = spec("name of the evaluation")
    min_score: float = spec("lowest score that passes", minimum=0, maximum=1)
    max_loss_points: float = spec(
        "largest loss against the unchanged model", unit="percentage points", minimum=0
    )


@dataclass(frozen=True, slots=True)
class Season:
    """A cycle that says when it is busy."""

    period_s: float = spec("length of the cycle", unit="seconds", above=0)
    amplitude: float = spec("its weight among the seasons", default=1.0, above=0)
    peak_at_s: float = spec(
        "its busiest moment, from the window's start", default=0.0, unit="seconds", minimum=0
    )


@dataclass(frozen=True, slots=True)
class Spike:
    """A sudden rise at a known time."""

    at_s: float = spec("begin, from the window's start", unit="seconds", minimum=0)
    duration_s: float = spec("length", unit="seconds", above=0)
    factor: float = spec("rate during it, in multiples of the mean", above=0)


@dataclass(frozen=True, slots=True)
class Arrivals:
    """When sessions begin. mean, p95 and peak say how much of the time each rate holds; seasons,
    spikes and on/off say when; the process says how single arrivals scatter around the rate."""

    process: str = spec(
        "poisson; gamma (with cv); constant; on_off; trace",
        choices=("poisson", "gamma", "constant", "on_off", "trace"),
    )
    mean_per_s: float = spec("mean rate over the window", unit="sessions/s", above=0)
    p95_per_s: float = spec("rate that 95% of the rate windows stay below", unit="sessions/s",
                            minimum=0)  # fmt: skip
    peak_per_s: float = spec("rate of the busiest rate window", unit="sessions/s", above=0)
    rate_window_s: float = spec(
        "time over which a rate is meant", default=60.0, unit="seconds", above=0
    )
    cv: float | None = spec(
        "coefficient of variation of gaps (gamma): 1 is Poisson, more is burstier",
        default=None, above=0, maximum=20,
    )  # fmt: skip
    on_s: float | None = spec("mean length of a burst (on_off)", default=None, unit="seconds",
                              above=0)  # fmt: skip
    off_s: float | None = spec("mean pause between bursts (on_off)", default=None,
                               unit="seconds", above=0)  # fmt: skip
    seasons: tuple[Season, ...] = spec("cycles", default=())
    spikes: tuple[Spike, ...] = spec("sudden rises", default=())
    trace: str | None = spec("file to replay (trace)", default=None)

    def problems(self) -> Iterator[Problem]:
        if not self.mean_per_s <= self.peak_per_s:
            cause = f"is {self.peak_per_s:g}, below mean_per_s ({self.mean_per_s:g})."
            yield Problem("peak_per_s", cause, "The peak is the highest rate.")
        if self.p95_per_s > self.peak_per_s:
            cause = f"is {self.p95_per_s:g}, above peak_per_s ({self.peak_per_s:g})."
            yield Problem("p95_per_s", cause, "The peak is the highest rate.")
        owners = {"cv": "gamma", "on_s": "on_off", "off_s": "on_off", "trace": "trace"}
        for name, process in owners.items():
            given = getattr(self, name) is not None
            if given and self.process != process:
                cause = f"belongs to process = {process!r}, but the process is {self.process!r}."
                yield Problem(name, cause, f"Remove it, or set process = {process!r}.")
            if self.process == process and not given:
                yield Problem(name, f"is missing: process = {process!r} needs it.", f"Add {name}.")
        if self.on_s is not None and self.on_s < self.rate_window_s:
            cause = f"is {self.on_s:g}, shorter than rate_window_s ({self.rate_window_s:g})."
            yield Problem("on_s", cause, "Make rate_window_s as short as a burst.")


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of one model call."""

    input_tokens: Distribution = spec("the whole prompt, history included")
    output_tokens: Distribution = spec("the answer")
    correlation: float = spec(
        "between input and output (Gaussian copula)", default=0.0, minimum=-1, maximum=1
    )
    session_correlation: float = spec(
        "between the prompts of one session", default=0.0, minimum=0, maximum=1
    )

    def problems(self) -> Iterator[Problem]:
        for name in ("input_tokens", "output_tokens"):
            if getattr(self, name).quantile(1) < 1:
                yield Problem(name, "is never one token long.", "Raise its max.")


@dataclass(frozen=True, slots=True)
class Sessions:
    """What one user request becomes: turns one after the other, each with its parallel calls."""

    turns: Distribution = spec("turns, each after the answer before", unit="turns")
    fan_out: Distribution = spec("parallel model calls in a turn (sub-agents)", unit="calls")
    think_time_s: Distribution = spec("a person's pause before the next turn", unit="seconds")
    tool_share: float = spec(
        "share of turns that wait for a tool in place of a person", minimum=0, maximum=1
    )
    tool_wait_s: Distribution = spec("time that a tool takes", unit="seconds")

    def problems(self) -> Iterator[Problem]:
        for name in ("turns", "fan_out"):
            if getattr(self, name).quantile(1) < 1:
                yield Problem(name, "is always below 1.", "A session has one call at least.")


@dataclass(frozen=True, slots=True)
class PrefixNode:
    """A piece of prompt that many sessions share, standing after its parent's."""

    id: str = spec("its name")
    tokens: int = spec("its length", unit="tokens", minimum=1)
    parent: str | None = spec("the node before it; none: it begins the prompt", default=None)
    weight: float = spec("share of sessions whose shared part ends here, relative to the other "
                         "nodes; 0 for a mere branching point", default=1.0, minimum=0)  # fmt: skip
    copies: int = spec("nodes of this kind that differ in content", default=1, minimum=1)


@dataclass(frozen=True, slots=True)
class Prefix:
    """How much of the prompts was computed before."""

    reuse_ideal: float = spec(
        "share of input tokens that an endless cache would hold", minimum=0, maximum=0.999
    )
    reuse_actual: float = spec(
        "share of input tokens that the cache is counted on to hold", minimum=0, maximum=0.999
    )
    window_s: Distribution = spec("time between two uses of a prefix", unit="seconds")
    nodes: tuple[PrefixNode, ...] = spec("the tree of shared prefixes", default=())

    def problems(self) -> Iterator[Problem]:
        if self.reuse_actual > self.reuse_ideal:
            cause = f"is {self.reuse_actual:g}, above reuse_ideal ({self.reuse_ideal:g})."
            yield Problem("reuse_actual", cause, "No cache beats an endless one.")
        parents = {node.id: node.parent for node in self.nodes}
        if len(parents) < len(self.nodes):
            yield Problem("nodes", "has an id twice.", "Give each node its own.")
        for index, node in enumerate(self.nodes):
            if node.parent is not None and node.parent not in parents:
                cause = f"is {node.parent!r}, which is no node."
                yield Problem(f"nodes[{index}].parent", cause, "Name the id of another node.")
            seen, at = {node.id}, node.parent
            while at in parents and at is not None and at not in seen:
                seen.add(at)
                at = parents[at]
            if at in seen:
                cure = "A root has no parent."
                yield Problem(f"nodes[{index}].parent", "leads round in a circle.", cure)
        if self.nodes and not any(node.weight for node in self.nodes):
            yield Problem("nodes", "have no weight: no session would use one.", "Set a weight.")


@dataclass(frozen=True, slots=True)
class Clause:
    """One promise: this percentile of this metric stays within this limit, in every window."""

    metric: str = spec(
        "ttft_s, tpot_s, itl_s (the longest stall), ttlt_s (to the last token), queue_s",
        choices=METRICS,
    )
    percentile: float = spec("share of requests that must keep the limit", unit="percent",
                             above=0, maximum=100)  # fmt: skip
    limit_s: float = spec("the limit", unit="seconds", above=0)
    window_s: float | None = spec("judged anew in each; none: over the whole run", default=None,
                                  unit="seconds", above=0)  # fmt: skip

    @property
    def name(self) -> str:
        return f"{self.metric.removesuffix('_s')} p{self.percentile:g} <= {self.limit_s:g} s"


@dataclass(frozen=True, slots=True)
class Availability:
    """How often an answer must come at all."""

    percent: float = spec("requests that must be answered", unit="percent", above=0, maximum=100)
    window_s: float = spec("over this time", unit="seconds", above=0)


@dataclass(frozen=True, slots=True)
class Cost:
    """What it may cost; at least one ceiling."""

    max_usd_per_mtok_input: float | None = spec("per million input tokens", default=None,
                                                unit="USD", above=0)  # fmt: skip
    max_usd_per_mtok_output: float | None = spec("per million output tokens", default=None,
                                                 unit="USD", above=0)  # fmt: skip
    max_usd_per_mtok_blended: float | None = spec("per million tokens of both", default=None,
                                                  unit="USD", above=0)  # fmt: skip

    def problems(self) -> Iterator[Problem]:
        if self == Cost():
            cause = "names no ceiling."
            yield Problem("max_usd_per_mtok_blended", cause, "Give one of the three.")


@dataclass(frozen=True, slots=True)
class Overload:
    """What happens to requests above capacity."""

    policy: str = spec("queue, shed (refuse at once) or degrade",
                       choices=("queue", "shed", "degrade"))  # fmt: skip
    queue_max_s: float | None = spec("longest wait in the queue; none: without end", default=None,
                                     unit="seconds", minimum=0)  # fmt: skip

    def problems(self) -> Iterator[Problem]:
        if self.policy == "shed" and self.queue_max_s:
            cause = f"is {self.queue_max_s:g}, but shed does not queue."
            yield Problem("queue_max_s", cause, "Remove it, or set policy = 'queue'.")


@dataclass(frozen=True, slots=True)
class Start:
    """How soon a new replica must serve."""

    budget_s: float = spec("from decision to ready", unit="seconds", above=0)


@dataclass(frozen=True, slots=True)
class Region:
    """Where users are."""

    name: str = spec("its name")
    share: float = spec("of all sessions", above=0, maximum=1)
    client_rtt_s: Distribution = spec("round trip of a client", unit="seconds")


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that breaks on schedule, for simulation and drills."""

    kind: str = spec("crash, slow (by factor) or unreachable",
                     choices=("crash", "slow", "unreachable"))  # fmt: skip
    at_s: float = spec("from the window's start", unit="seconds", minimum=0)
    duration_s: float = spec("until it is well again", unit="seconds", above=0)
    replicas: int = spec("how many it hits", default=1, minimum=1)
    factor: float = spec("slowness of a slow one", default=2.0, above=1)


@dataclass(frozen=True, slots=True)
class Logging:
    """What is written down of the requests."""

    token_ids: bool = spec("whether prompt and output ids are kept")
    sample_rate: float = spec("share of requests", minimum=0, maximum=1)
    retention_days: float = spec("kept for", unit="days", above=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A workload definition of Penstock."""

    schema: int = spec("version of this format", minimum=SCHEMA, maximum=SCHEMA)
    name: str = spec("of the workload")
    version: str = spec("of this file, as 1.2.0")
    owner: str = spec("who answers for it")
    archetype: str = spec("kind of application", choices=ARCHETYPES)
    figure_of_merit: str = spec("what a better deployment has more (or less) of", choices=MERITS)
    consumer: str = spec("who reads the output: a person, a system, a store",
                         choices=("human", "system", "store"))  # fmt: skip
    slo_class: str = spec("of its requests in the scheduler", choices=CLASSES)
    streaming: bool = spec("whether tokens are sent as they come")
    structured_output: str = spec(
        "constraint on the output",
        default="none",
        choices=("none", "json", "json_schema", "grammar", "tools"),
    )
    window: Window = spec("the time described")
    model: Model = spec("what answers")
    arrivals: Arrivals = spec("when sessions begin")
    lengths: Lengths = spec("tokens of a call")
    sessions: Sessions = spec("what a session consists of")
    prefix: Prefix = spec("what prompts share")
    slo: tuple[Clause, ...] = spec("promises on latency; a batch may have one on ttlt_s")
    availability: Availability = spec("promise to answer")
    cost: Cost = spec("ceiling")
    overload: Overload = spec("beyond capacity")
    start: Start = spec("of a replica")
    regions: tuple[Region, ...] = spec("where users are")
    logging: Logging = spec("what is kept")
    quality: tuple[QualityGate, ...] = spec("evaluations that gate changes")
    faults: tuple[Fault, ...] = spec("what breaks when", default=())

    def problems(self) -> Iterator[Problem]:
        if not re.fullmatch(r"\d+\.\d+\.\d+([-+][\w.+-]+)?", self.version):
            cause = f"is {self.version!r}: not a version of three numbers."
            yield Problem("version", cause, "Write it like 1.0.0.")
        total = sum(region.share for region in self.regions)
        if abs(total - 1) > 0.005:
            yield Problem("regions", f"have shares that sum to {total:g}.", "Make it 1.")
        for name in ("spikes", "faults"):
            owner = self.arrivals if name == "spikes" else self
            for index, event in enumerate(getattr(owner, name)):
                if event.at_s >= self.window.duration_s:
                    path = f"{'arrivals.' if name == 'spikes' else ''}{name}[{index}].at_s"
                    cause = f"is {event.at_s:g}, after the window's {self.window.duration_s:g} s."
                    yield Problem(path, cause, "Move it, or lengthen the window.")
        yield from self._of_the_slo()

    def _of_the_slo(self) -> Iterator[Problem]:
        best: dict[tuple[str, float | None], list[tuple[float, float]]] = {}
        for index, clause in enumerate(self.slo):
            if not self.streaming and clause.metric in ("ttft_s", "tpot_s", "itl_s"):
                cause = f"promises {clause.metric}, but streaming is false."
                yield Problem(f"slo[{index}].metric", cause, "Promise ttlt_s, or stream.")
            same = best.setdefault((clause.metric, clause.window_s), [])
            for percentile, limit in same:
                swapped = (percentile - clause.percentile) * (limit - clause.limit_s) < 0
                if swapped or percentile == clause.percentile:
                    cause = f"contradicts p{percentile:g} <= {limit:g} s of the same metric."
                    cure = "A higher percentile has a higher limit; give each percentile once."
                    yield Problem(f"slo[{index}].limit_s", cause, cure)
            same.append((clause.percentile, clause.limit_s))

    @property
    def calls_per_session(self) -> float:
        """Model calls that one user request causes (RPS to QPS)."""
        return whole_mean(self.sessions.turns) * whole_mean(self.sessions.fan_out)


def whole_mean(distribution: Distribution) -> float:
    """Mean of the distribution's values as whole numbers of 1 or more, as they are drawn."""
    points = 2000
    values = (distribution.quantile((i + 0.5) / points) for i in range(points))
    return sum(max(1, round(value)) for value in values) / points
