"""Three kinds of application, each with its own figure of merit: where a workload file begins.

The figures are illustrations to be replaced by measured ones; that every field is thought of is
the point. Chatbot+: a person reads the tokens. Background agent: loops of tool calls, somebody
awaits the artefact. Data processor: documents in, structure out, cost decides.
"""

from __future__ import annotations

from collections.abc import Callable

from penstock.workload.definition import (
    SCHEMA,
    Arrivals,
    Availability,
    Clause,
    Cost,
    Lengths,
    Logging,
    Model,
    Overload,
    Prefix,
    PrefixNode,
    QualityGate,
    Region,
    Season,
    Sessions,
    Start,
    Window,
    Workload,
)
from penstock.workload.lengths import Distribution

TO_FILL_IN = "fill in"
HOUR_S, DAY_S, WEEK_S = 3600.0, 86400.0, 604800.0


def lognormal(p50: float, p95: float, most: float, least: float | None = None) -> Distribution:
    return Distribution(p50=float(p50), p95=float(p95), max=float(most), min=least)


def fixed(value: float) -> Distribution:
    return Distribution(kind="fixed", value=float(value))


def chatbot() -> Workload:
    """Chatbot+: output tokens/s per user."""
    return Workload(
        schema=SCHEMA,
        name="chatbot",
        version="1.0.0",
        owner=TO_FILL_IN,
        archetype="chatbot",
        figure_of_merit="output_tokens_per_s_per_user",
        consumer="human",
        slo_class="interactive",
        streaming=True,
        structured_output="tools",
        window=Window("2026-11-02T00:00:00Z", WEEK_S),
        model=Model(TO_FILL_IN, "fp8"),
        arrivals=Arrivals(
            "gamma",
            mean_per_s=4.0,
            p95_per_s=9.0,
            peak_per_s=20.0,
            cv=1.5,
            seasons=(Season(DAY_S, 1.0, 14 * HOUR_S), Season(WEEK_S, 0.4, 2.5 * DAY_S)),
        ),
        lengths=Lengths(lognormal(1200, 8000, 32000), lognormal(180, 1200, 4000), 0.2, 0.8),
        sessions=Sessions(
            turns=lognormal(3, 12, 40),
            fan_out=fixed(1),
            think_time_s=lognormal(30, 600, 3600),
            tool_share=0.2,
            tool_wait_s=lognormal(0.3, 3, 30),
        ),
        prefix=Prefix(
            0.7,
            0.55,
            lognormal(30, 600, 3600),
            (PrefixNode("system", 400, weight=0.0), PrefixNode("tenant", 200, "system", copies=20)),
        ),
        slo=(
            Clause("ttft_s", 95, 0.45),
            Clause("tpot_s", 95, 0.04),
            Clause("tpot_s", 99, 0.1),
        ),
        availability=Availability(99.9, 30 * DAY_S),
        cost=Cost(0.3, 1.2),
        overload=Overload("shed"),
        start=Start(15.0),
        regions=(
            Region("us-east", 0.6, lognormal(0.02, 0.08, 0.3)),
            Region("eu-west", 0.4, lognormal(0.03, 0.15, 0.5)),
        ),
        logging=Logging(True, 1.0, 30.0),
        quality=(QualityGate("chat", 0.7, 1.0),),
    )


def background_agent() -> Workload:
    """Background agent: time to the last token at p95."""
    return Workload(
        schema=SCHEMA,
        name="background-agent",
        version="1.0.0",
        owner=TO_FILL_IN,
        archetype="background_agent",
        figure_of_merit="ttlt_p95_s",
        consumer="system",
        slo_class="agent",
        streaming=True,
        structured_output="tools",
        window=Window("2026-11-02T00:00:00Z", WEEK_S),
        model=Model(TO_FILL_IN, "fp8"),
        arrivals=Arrivals(
            "on_off",
            mean_per_s=0.05,
            p95_per_s=0.25,
            peak_per_s=0.75,
            on_s=600.0,
            off_s=1800.0,
            seasons=(Season(DAY_S, 1.0, 13 * HOUR_S),),
        ),
        lengths=Lengths(lognormal(12000, 60000, 200000), lognormal(400, 4000, 32000), 0.1, 0.8),
        sessions=Sessions(
            turns=lognormal(12, 60, 200),
            fan_out=lognormal(1, 4, 16),
            think_time_s=fixed(1),
            tool_share=0.95,
            tool_wait_s=lognormal(2, 600, 7200),
        ),
        prefix=Prefix(
            0.9,
            0.85,
            lognormal(5, 900, 7200),
            (PrefixNode("agent", 3000, weight=1.0), PrefixNode("tools", 2500, "agent", copies=8)),
        ),
        slo=(
            Clause("ttft_s", 95, 5.0),
            Clause("tpot_s", 95, 0.08),
            Clause("ttlt_s", 95, 300.0),
        ),
        availability=Availability(99.5, 30 * DAY_S),
        cost=Cost(0.5, 2.0),
        overload=Overload("queue", 60.0),
        start=Start(60.0),
        regions=(Region("us-east", 1.0, lognormal(0.02, 0.08, 0.3)),),
        logging=Logging(True, 1.0, 90.0),
        quality=(QualityGate("task-success", 0.6, 1.0),),
    )


def data_processor() -> Workload:
    """Data processor: millions of tokens per dollar."""
    return Workload(
        schema=SCHEMA,
        name="data-processor",
        version="1.0.0",
        owner=TO_FILL_IN,
        archetype="data_processor",
        figure_of_merit="mtok_per_usd",
        consumer="store",
        slo_class="batch",
        streaming=False,
        structured_output="json_schema",
        window=Window("2026-11-02T00:00:00Z", WEEK_S),
        model=Model(TO_FILL_IN, "int8"),
        arrivals=Arrivals(
            "on_off",
            mean_per_s=0.5,
            p95_per_s=5.0,
            peak_per_s=100.0,
            on_s=2 * HOUR_S,
            off_s=22 * HOUR_S,
        ),
        lengths=Lengths(lognormal(3000, 12000, 32000), lognormal(200, 600, 2000), 0.4),
        sessions=Sessions(fixed(1), fixed(1), fixed(0), 0.0, fixed(0)),
        prefix=Prefix(
            0.3,
            0.2,
            lognormal(60, 3600, 14400),
            (
                PrefixNode("instructions", 900, weight=0.0),
                PrefixNode("schema", 430, "instructions", copies=5),
            ),
        ),
        slo=(Clause("ttlt_s", 95, 4 * HOUR_S),),
        availability=Availability(99.0, 30 * DAY_S),
        cost=Cost(max_usd_per_mtok_blended=0.04),
        overload=Overload("queue"),
        start=Start(300.0),
        regions=(Region("any", 1.0, lognormal(0.05, 0.2, 1.0)),),
        logging=Logging(True, 0.05, 7.0),
        quality=(QualityGate("field-accuracy", 0.9, 1.0), QualityGate("schema-validity", 1.0, 0.0)),
    )


PRESETS: dict[str, Callable[[], Workload]] = {
    "chatbot": chatbot,
    "background_agent": background_agent,
    "data_processor": data_processor,
}
