"""What the scripts share: an engine that is driven step by step, interleaved pairs, result files.

The engine runs in this process without the API above it, so that a figure is the engine's own.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from penstock.config import Config, EngineConfig, ModelConfig
from penstock.core.events import Event, Finished, Scheduled, TokensOut
from penstock.core.request import FinishReason, Sampling, Submission
from penstock.engine.client import EngineStats
from penstock.engine.clock import MonotonicClock
from penstock.report.machine import command_line, machine_info
from penstock.report.stats import median

RESULTS = Path(__file__).parent / "results"
ROOFLINE = ("bytes_moved", "operations", "floor_s", "step_s")
T = TypeVar("T")
U = TypeVar("U")


@dataclass(slots=True)
class Trace:
    """What one request saw; times on the engine's clock, in seconds."""

    sent_s: float
    tokens_s: list[float] = field(default_factory=list)
    """when each output token was there"""
    cached_tokens: int = 0
    reason: FinishReason | None = None

    @property
    def ttft_s(self) -> float:
        return self.tokens_s[0] - self.sent_s

    @property
    def e2e_s(self) -> float:
        return self.tokens_s[-1] - self.sent_s


class Driver:
    """An engine and what happens in it."""

    def __init__(
        self,
        model: Path,
        max_model_len: int | None = None,
        **options: Any,
    ) -> None:
        """options: fields of ModelConfig and EngineConfig."""
        from penstock.engine.build import build_engine  # torch is imported here

        names = {field.name for field in fields(ModelConfig)}
        model_options = {name: value for name, value in options.items() if name in names}
        engine_options = {name: value for name, value in options.items() if name not in names}
        config = Config(
            model=ModelConfig(str(model), max_model_len=max_model_len, **model_options),
            engine=EngineConfig(**engine_options),
        ).check()
        self.clock = MonotonicClock()
        self.engine, self.info = build_engine(config, self.clock, self._hear)
        self.traces: dict[str, Trace] = {}
        self.steps: list[EngineStats] = []
        self._serial = 0

    def add(self, prompt: Sequence[int], output_len: int, **sampling: Any) -> Trace:
        """Queue a request that ends after exactly output_len tokens; greedy unless the fields of
        Sampling say otherwise."""
        self._serial += 1
        name = f"r{self._serial}"
        asked = Sampling(**{"temperature": 0.0, "max_tokens": output_len, **sampling})
        trace = self.traces[name] = Trace(self.clock.now())
        self.engine.scheduler.add(Submission(name, list(prompt), asked, arrival_s=trace.sent_s))
        return trace

    def step(self) -> EngineStats:
        """One turn of the engine's loop; its statistics."""
        self.engine.step()
        return self.steps[-1]

    def run(self) -> None:
        """Step until every request is done."""
        while self.engine.scheduler.has_work:
            self.step()

    def close(self) -> None:
        """End the executor's thread."""
        self.engine.run(_StopAtOnce())

    def _hear(self, events: list[Event], stats: EngineStats) -> None:
        self.steps.append(stats)
        for event in events:
            if isinstance(event, TokensOut):
                self.traces[event.id].tokens_s += [event.at] * len(event.tokens)
            elif isinstance(event, Scheduled) and not event.resumed:
                self.traces[event.id].cached_tokens = event.cached_tokens
            elif isinstance(event, Finished):
                self.traces[event.id].reason = event.reason
                assert event.reason is FinishReason.LENGTH, f"{event.id} ended by {event.reason}"


class _StopAtOnce:
    def get(self, timeout_s: float) -> list[Any]:
        return [None]


def random_ids(count: int, vocab_size: int, seed: object) -> list[int]:
    """Ids above the special ones, a pure function of the seed."""
    rng = random.Random(str(seed))
    return [rng.randrange(min(300, vocab_size // 2), vocab_size) for _ in range(count)]


def interleaved(
    pairs: int, first: Callable[[int], T], second: Callable[[int], U]
) -> tuple[list[T], list[U]]:
    """Run both `pairs` times, in turns that swap their order: drift of the machine hits both."""
    firsts: list[T] = []
    seconds: list[U] = []
    for index in range(pairs):
        if index % 2:
            seconds.append(second(index))
            firsts.append(first(index))
        else:
            firsts.append(first(index))
            seconds.append(second(index))
    return firsts, seconds


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Median over pairs of their ratio."""
    return median([a / b for a, b in zip(numerators, denominators, strict=True)])


def roofline(steps: Sequence[EngineStats]) -> str:
    """What steps had to do at the least, beside what they took; one line."""
    busy = [step for step in steps if step.operations]
    count = max(1, len(busy))
    sums = [sum(getattr(step, name) for step in busy) for name in ROOFLINE]
    moved, operations, floor_s, took_s = (total / count for total in sums)
    bounds = Counter(step.bound for step in busy if step.bound)
    bound = f"; most are bound by {bounds.most_common(1)[0][0]}" if bounds else ""
    return (
        f"roofline: {len(busy)} steps of {moved / 1e6:.1f} MB and {operations / 1e9:.2f} G "
        f"operations; floor {floor_s * 1e3:.2f} ms of {took_s * 1e3:.2f} ms measured "
        f"({floor_s / took_s if took_s else 0.0:.0%}){bound}"
    )


def arguments(doc: str, **defaults: Any) -> argparse.Namespace:
    """The flags that all scripts have, and a script's own numbers with their defaults."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="try the script on a tiny model")
    parser.add_argument("--pairs", type=int, default=5, help="interleaved repetitions")
    parser.add_argument("--threads", type=int, default=None, help="threads of torch")
    for name, default in defaults.items():
        parser.add_argument("--" + name.replace("_", "-"), type=type(default), default=default)
    given = parser.parse_args()
    if given.threads is not None:
        import torch

        torch.set_num_threads(given.threads)
    return given


def save(name: str, given: argparse.Namespace, figures: dict[str, Any]) -> None:
    """Write the figures with all that is needed to repeat them; tiny runs are not results."""
    if given.tiny:
        return
    RESULTS.mkdir(exist_ok=True)
    data = {
        "benchmark": name,
        "command": f"python -m benchmarks.engine.{name} " + command_line().partition(" ")[2],
        "machine": machine_info(),
        "options": vars(given),
        **figures,
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(data, indent=2) + "\n")


def verdict(what: str, value: float, bound: str, holds: bool) -> str:
    """One line of a claim: its figure, its bound and whether it holds."""
    return f"{'ok  ' if holds else 'MISS'} {what}: {value:.2f} (bound: {bound})"
