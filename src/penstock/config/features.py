"""Every feature that can be on or off, one line each, and which pairs exclude each other.

This one table refuses what cannot work at start, makes docs/compatibility.md and is what
tests/composition runs: a new feature joins all three by adding its line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from penstock.errors import UnsupportedError


@dataclass(frozen=True, slots=True)
class Feature:
    """name: also its column in the document. Two features that set the same option are
    alternatives; all others compose, but for what `excludes` names."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    """fields of the config that switch it on, with values that suit a test; a larger number is
    more of the same"""
    off: Mapping[str, Any] = field(default_factory=dict)
    """fields that switch it off, where the defaults do not"""
    request: Mapping[str, Any] = field(default_factory=dict)
    """fields of the requests that use it"""
    how: str = ""
    """what switches it on, where that is more than its fields"""
    excludes: Mapping[str, str] = field(default_factory=dict)
    """name of another feature -> why the two cannot work together"""

    def is_on(self, values: Mapping[str, Any]) -> bool:
        """Whether a config switches it on, given all its fields by name."""
        return bool(self.options) and all(
            _reaches(values[name], wanted) for name, wanted in self.options.items()
        )

    @property
    def switch(self) -> str:
        """What a user writes."""
        flags = [_flag(name, value) for name, value in self.options.items()]
        return self.how or ", ".join(flags + [f"`{name}` of a request" for name in self.request])


def _reaches(given: Any, wanted: Any) -> bool:
    if isinstance(wanted, bool | str) or given is None:
        return bool(given == wanted)
    return bool(given >= wanted)


def _flag(name: str, value: Any) -> str:
    flag = "--" + name.replace("_", "-")
    return f"`{flag}`" if value is True else f"`{flag} {value}`"


FEATURES = (
    Feature("prefix cache", {"enable_prefix_caching": True}, {"enable_prefix_caching": False}),
    Feature(
        "chunked prefill",
        {"max_num_batched_tokens": 40},
        {"max_num_batched_tokens": 512},
        how="a prompt longer than `--max-num-batched-tokens`",
    ),
    Feature("tensor parallel", {"tensor_parallel_size": 2}),
    Feature("pipeline parallel", {"pipeline_parallel_size": 2}),
    Feature("context parallel", {"prefill_context_parallel_size": 2}),
    Feature("data parallel", {"data_parallel_size": 2}),
    Feature("int8", {"quantization": "int8"}),
    Feature("int4", {"quantization": "int4"}),
    Feature("depth 2", {"scheduler_depth": 2}, {"scheduler_depth": 1}),
    Feature("preemption", how="a KV cache that cannot hold all running requests"),
    Feature("priorities", {"scheduling_policy": "priority"}, request={"priority": 1}),
    Feature("n > 1", request={"n": 2}),
    Feature("logprobs", request={"logprobs": 2}),
    Feature("prompt logprobs", request={"prompt_logprobs": 1}),
    Feature("stop strings", request={"stop": "…"}),
)


def alternatives(a: Feature, b: Feature) -> bool:
    """Whether the two are values of one option, so that nobody can ask for both."""
    return bool(a.options.keys() & b.options.keys())


def refusal(a: Feature, b: Feature) -> str | None:
    """Why the two do not work together; None where they do."""
    return a.excludes.get(b.name) or b.excludes.get(a.name)


def pairs(features: Sequence[Feature] = FEATURES) -> Iterator[tuple[Feature, Feature]]:
    """All that somebody can ask for."""
    return (pair for pair in combinations(features, 2) if not alternatives(*pair))


def check_features(values: Mapping[str, Any], features: Sequence[Feature] = FEATURES) -> None:
    """values: all fields of a config by name. Raises UnsupportedError naming a pair that it
    switches on and that does not work, and the reason."""
    for a, b in pairs(features):
        why = refusal(a, b)
        if why is not None and a.is_on(values) and b.is_on(values):
            raise UnsupportedError(
                f"{a.name} ({a.switch}) and {b.name} ({b.switch}) do not work together: {why}.",
                cure="Leave one of them away.",
            )


HEAD = """# Compatibility

Made from the table in `src/penstock/config/features.py` by `make docs`; do not edit.

Every pair works together (✓), is refused at start with its reason (✗), or is a choice of one
option (·). `tests/composition` runs each pair against the tokens of a plain engine that serves
one request at a time, with streaming, prompts that share prefixes and requests that are cancelled
on their way: all pairs, and what the table of triples there names, in `make test-slow`, an array
of rows that covers all pairs with each change.

"""


def render_docs(features: Sequence[Feature] = FEATURES) -> str:
    """docs/compatibility.md."""
    lines = ["| | feature | switched on by |", "| --- | --- | --- |"]
    lines += [f"| {i} | {f.name} | {f.switch} |" for i, f in enumerate(features, 1)]
    columns = [str(i) for i in range(1, len(features) + 1)]
    lines += ["", f"| | | {' | '.join(columns)} |", "| --- " * (len(features) + 2) + "|"]
    for i, feature in enumerate(features, 1):
        marks = [_mark(feature, other) for other in features]
        lines.append(f"| {i} | {feature.name} | {' | '.join(marks)} |")
    refused = [
        f"- {a.name} and {b.name}: {why}." for a, b in pairs(features) if (why := refusal(a, b))
    ]
    reasons = ["", "Refused:", "", *refused] if refused else ["", "No pair is refused."]
    return HEAD + "\n".join([*lines, *reasons]) + "\n"


def _mark(a: Feature, b: Feature) -> str:
    if a is b:
        return ""
    if alternatives(a, b):
        return "·"
    return "✗" if refusal(a, b) else "✓"
