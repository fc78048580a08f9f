"""Faults of time and work: queues, host, cache, hardware, engines that stand or end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from penstock.core.records import Device, RequestRecord
from penstock.debug.findings import Finding, Rule, ids_of
from penstock.observe.reader import Log
from penstock.report.stats import median

QUEUE_SHARE, QUEUE_S = 0.4, 0.1
"""A queue is a fault when the requests together spend this share of their time in it, and half of
them at least so long."""
LEAST_REQUESTS, LEAST_STEPS = 8, 50
HOST_SHARE, SCHEDULE_SHARE = 0.85, 0.5
STUCK_S = 5.0
REJECTED_SHARE = 0.05
HOT_C = 85.0
CLOCK_SHARE = 0.85


def _total(record: RequestRecord) -> float:
    return record.sent or record.ended or 0.0


def _queue(
    log: Log, fault: str, seconds: dict[str, float], what: str, cause: str, next: str
) -> Finding | None:
    """seconds: by request id. A finding when they are a large part of what requests take."""
    if len(log.requests) < LEAST_REQUESTS:
        return None
    whole = sum(_total(record) for record in log.requests)
    spent = sum(seconds.values())
    half = median([seconds.get(record.id, 0.0) for record in log.requests])
    if spent < QUEUE_SHARE * whole or half < QUEUE_S:
        return None
    worst = sorted(log.requests, key=lambda r: -seconds.get(r.id, 0.0))
    return Finding(
        fault,
        f"Requests spent {100 * spent / whole:.0f} % of their time {what}, half of them "
        f"{half * 1e3:.0f} ms and more.",
        cause,
        next,
        ids_of(worst),
        {"share": round(spent / whole, 3), "median_s": round(half, 4)},
    )


def _waits(log: Log, *reasons: str) -> dict[str, float]:
    return {
        r.id: sum(w.s for c in r.choices for w in c.waits if w.reason in reasons) / r.n
        for r in log.requests
    }


def queue_intake(log: Log) -> Finding | None:
    """Most time passes before the engine: body, template, tokenizer threads, event loop."""
    seconds = {r.id: r.choices[0].queued or 0.0 for r in log.requests}
    return _queue(
        log,
        "queue-intake",
        seconds,
        "before the engine's queue",
        "Tokenizer threads or the event loop are behind: long prompts, or a busy API process.",
        "`penstock logs explain` on one; give the API a core of its own, or add replicas.",
    )


def queue_slots(log: Log) -> Finding | None:
    """Most time passes in the queue because max_num_seqs requests run."""
    return _queue(
        log,
        "queue-slots",
        _waits(log, "slots"),
        "waiting for one of --max-num-seqs slots",
        "More requests than slots, while the cache has room.",
        "Raise --max-num-seqs if steps stay short enough, or add replicas.",
    )


def queue_blocks(log: Log) -> Finding | None:
    """Most time passes in the queue because the KV cache is full."""
    return _queue(
        log,
        "queue-blocks",
        _waits(log, "blocks", "preemption", "result"),
        "waiting for blocks of the KV cache",
        "The cache is too small for this many tokens at once.",
        "Raise --kv-cache-memory-bytes, lower --max-model-len, or add replicas.",
    )


def queue_tokens(log: Log) -> Finding | None:
    """Most time passes in the queue because each step's token budget is spent."""
    return _queue(
        log,
        "queue-tokens",
        _waits(log, "tokens"),
        "waiting for a part of the token budget of steps",
        "Long prompts arrive faster than they are computed.",
        "Raise --max-num-batched-tokens, or add replicas.",
    )


def queue_reply(log: Log) -> Finding | None:
    """Most time passes after the engine: detokenizer, event loop, a socket nobody reads."""
    seconds = {}
    for record in log.requests:
        ends = [c.finished for c in record.choices if c.finished is not None]
        seconds[record.id] = max(0.0, _total(record) - max(ends)) if ends else 0.0
    return _queue(
        log,
        "queue-reply",
        seconds,
        "between their last token and the last byte out",
        "Clients read slowly, or the event loop is behind.",
        "Compare with the client's clock; look for proxies that buffer.",
    )


def turned_away(log: Log) -> Finding | None:
    """The door refused a noticeable share of requests (429, 503)."""
    counts: Counter[str] = Counter()
    for _, note in log.notes:
        if note.kind == "rejected":
            counts.update(note.data)
    total = sum(counts.values())
    if total < 3 or total < REJECTED_SHARE * (len(log.requests) + total):
        return None
    return Finding(
        "turned-away",
        f"{total} requests were refused at the door, {len(log.requests)} served: {dict(counts)}.",
        "More load than this replica takes in.",
        "Add replicas, or raise --max-waiting if the wait is acceptable.",
        [],
        dict(counts),
    )


def host_overhead(log: Log) -> Finding | None:
    """Steps take far longer than the device computes: the host decides, converts, or waits."""
    for (start, engine), table in log.steps.items():
        rows = [row for row in table.rows if row.step_s > 0]
        if len(rows) < LEAST_STEPS:
            continue
        wall = sum(row.step_s for row in rows)
        host = 1 - sum(min(row.device_s, row.step_s) for row in rows) / wall
        deciding = median([row.schedule_s / row.step_s for row in rows])
        if deciding > SCHEDULE_SHARE or host > HOST_SHARE:
            return Finding(
                "host-overhead",
                f"Engine {engine} of {start}: the device computes {100 * (1 - host):.0f} % of the "
                f"time of its steps; deciding takes {100 * deciding:.0f} % of a step.",
                "Python work between steps, a slow or shared core, or swapped memory.",
                "Sample the engine's process with py-spy; pin it to cores of its own.",
                [],
                {"host_share": round(host, 3), "schedule_share": round(deciding, 3)},
            )
    return None


def preemption_thrash(log: Log) -> Finding | None:
    """Requests lose their computed tokens again and again."""
    lost = sum(p[2] for r in log.requests for c in r.choices for p in c.preempted)
    times = sum(record.preemptions for record in log.requests)
    work = sum(row.prefill_tokens for table in log.steps.values() for row in table.rows)
    choices = sum(record.n for record in log.requests)
    if choices < LEAST_REQUESTS or times < choices or lost < 0.3 * max(1, work):
        return None
    worst = sorted(log.requests, key=lambda r: -r.preemptions)
    return Finding(
        "preemption-thrash",
        f"{times} preemptions of {choices} answers: {lost} computed tokens were given up, of "
        f"{work} prefilled.",
        "Too many requests share too few blocks.",
        "Lower --max-num-seqs, or raise --kv-cache-memory-bytes.",
        ids_of(worst),
        {"preemptions": times, "lost_tokens": lost},
    )


def leaked_blocks(log: Log) -> Finding | None:
    """The books of the KV cache do not balance when idle."""
    worst = max((table.leaked_blocks for table in log.steps.values()), default=0)
    if not worst:
        return None
    return Finding(
        "leaked-blocks",
        f"{worst} blocks belong to nobody although the engine is idle.",
        "A fault of the scheduler: blocks were not given back.",
        "Report it with this log; a restart frees them.",
        [],
        {"blocks": worst},
    )


def stuck_engine(log: Log) -> Finding | None:
    """Requests are open and an engine says nothing for seconds."""
    worst, which = 0.0, ""
    for start, readings in log.telemetry.items():
        for reading in readings:
            for state in reading.engines:
                if reading.open_requests and state.age_s > worst:
                    worst, which = state.age_s, f"engine {state.engine} of {start}"
                    step = state.step
    if worst < STUCK_S:
        return None
    return Finding(
        "stuck-engine",
        f"{which} said nothing for {worst:.1f} s after step {step} while requests were open.",
        "A kernel, a collective or a driver that does not return; a process that is stopped.",
        "Look at /health and at the stacks of the engine's process (py-spy dump).",
        ids_of([r for r in log.requests if _total(r) > worst]),
        {"silent_s": round(worst, 1), "step": step},
    )


def lost_engine(log: Log) -> Finding | None:
    """An engine's process ended and was replaced."""
    count = sum(table.restarts for table in log.steps.values())
    moved = [r for r in log.requests if any(len(c.engines) > 1 for c in r.choices)]
    if not count:
        return None
    return Finding(
        "lost-engine",
        f"Engine processes were replaced {count} times; {len(moved)} requests moved.",
        "The process crashed, was killed (memory), or hung.",
        "See the server's own log for its last words.",
        ids_of(moved),
        {"restarts": count},
    )


def requests_without_end(log: Log) -> Finding | None:
    """Requests began and never ended: the process was killed, or lost count of them."""
    open_after_stop = [b for start, b in log.begins.values() if start in log.stops]
    if not open_after_stop:
        return None
    killed = sum(not stop.clean for stop in log.stops.values())
    return Finding(
        "requests-without-end",
        f"{len(open_after_stop)} requests began and never ended; {killed} processes were killed.",
        "The process was killed (memory, power, a hard restart) with requests in flight."
        if killed
        else "The server ended and forgot them: a fault of its own.",
        "Look for the kill in the host's journal; drain before restarts (SIGTERM).",
        [begin.id for begin in open_after_stop[:5]],
        {"killed": killed},
    )


def failing_requests(log: Log) -> Finding | None:
    """A noticeable share of requests ends with an error."""
    found = [r for r in log.requests if r.finish == "error" and _is_ours(r)]
    if len(found) < 2 or len(found) < 0.01 * len(log.requests):
        return None
    codes = Counter(str((r.error or {}).get("code")) for r in found)
    return Finding(
        "failing-requests",
        f"{len(found)} of {len(log.requests)} requests failed: {dict(codes)}.",
        str((found[-1].error or {}).get("message", "")),
        str((found[-1].error or {}).get("cure") or "See the server's own log for these ids."),
        ids_of(found),
        dict(codes),
    )


def _is_ours(record: RequestRecord) -> bool:
    code = str((record.error or {}).get("code", ""))
    return code not in ("invalid_field", "context_length_exceeded", "unsupported_field")


def _devices(log: Log) -> Iterator[tuple[str, list[Device]]]:
    """(name, readings in order) of each accelerator and CPU that a sensor reads."""
    for start, readings in log.telemetry.items():
        found: dict[str, list[Device]] = {}
        for reading in readings:
            cpus = [reading.cpu] if reading.cpu is not None else []
            for place, device in enumerate([*cpus, *(reading.gpus or [])]):
                found.setdefault(f"{device.name} {place} of {start}", []).append(device)
        yield from found.items()


def thermal_throttle(log: Log) -> Finding | None:
    """A device slows down because it is hot."""
    for name, readings in _devices(log):
        reasons = {reason for d in readings for reason in d.throttle or () if "thermal" in reason}
        hottest = max((d.temperature_c for d in readings if d.temperature_c is not None), default=0)
        if reasons or hottest >= HOT_C:
            return Finding(
                "thermal-throttle",
                f"{name} reached {hottest:.0f} °C; throttle reasons: {sorted(reasons) or 'none'}.",
                "Cooling: fans, dust, air that comes in warm, a neighbour.",
                "Drain the replica; compare temperature and power with its peers.",
                [],
                {"temperature_c": hottest, "reasons": sorted(reasons)},
            )
    return None


def clock_drop(log: Log) -> Finding | None:
    """A busy accelerator's clock falls well below what it was, without heat."""
    for name, readings in _devices(log):
        clocks = [d.clock_mhz for d in readings if d.clock_mhz and (d.utilisation or 0.0) > 0.5]
        if len(clocks) < 6 or any("thermal" in r for d in readings for r in d.throttle or ()):
            continue
        third = len(clocks) // 3
        before, after = median(clocks[:third]), median(clocks[-third:])
        if after < CLOCK_SHARE * before:
            return Finding(
                "clock-drop",
                f"{name}: the clock fell from {before:.0f} to {after:.0f} MHz under load.",
                "A power cap, a locked clock, or a failing supply.",
                "Compare power and cap in the telemetry with a healthy peer's.",
                [],
                {"before_mhz": before, "after_mhz": after},
            )
    return None


def device_errors(log: Log) -> Finding | None:
    """A device reports Xid errors, or uncorrected ECC errors that grow."""
    for name, readings in _devices(log):
        xids = sorted({d.xid for d in readings if d.xid})
        counts = [d.ecc_errors for d in readings if d.ecc_errors is not None]
        grown = max(counts, default=0) - (counts[0] if counts else 0)
        if xids or grown > 0:
            return Finding(
                "device-errors",
                f"{name}: Xid {xids or 'none'}, {grown} new ECC errors.",
                "Memory or the link of the device is failing.",
                "Drain the replica and run the vendor's diagnosis.",
                [],
                {"xid": xids, "ecc": grown},
            )
    return None


def canary_failed(log: Log) -> Finding | None:
    """Golden prompts came out with other tokens."""
    found = [note for _, note in log.notes if note.kind == "canary_failed"]
    if not found:
        return None
    return Finding(
        "canary-failed",
        f"{len(found)} times: {found[0].text}",
        "Silent corruption: memory, a kernel, a damaged cache or checkpoint.",
        "Take the replica out; replay logged requests on it and on another.",
        [],
        found[0].data,
    )


def gaps_in_the_log(log: Log) -> Finding | None:
    """The log itself lacks events: conclusions may be wrong."""
    lossy = [record for record in log.requests if record.lossy]
    if not lossy:
        return None
    return Finding(
        "gaps-in-the-log",
        f"{len(lossy)} records lack events that the log's queue had no place for.",
        "The log's thread or its disk was behind.",
        "Raise --log-queue, lower --log-sample, or use a faster disk.",
        ids_of(lossy),
    )


RULES: dict[str, Rule] = {
    "queue-intake": queue_intake,
    "queue-slots": queue_slots,
    "queue-blocks": queue_blocks,
    "queue-tokens": queue_tokens,
    "queue-reply": queue_reply,
    "turned-away": turned_away,
    "host-overhead": host_overhead,
    "preemption-thrash": preemption_thrash,
    "leaked-blocks": leaked_blocks,
    "stuck-engine": stuck_engine,
    "lost-engine": lost_engine,
    "requests-without-end": requests_without_end,
    "failing-requests": failing_requests,
    "thermal-throttle": thermal_throttle,
    "clock-drop": clock_drop,
    "device-errors": device_errors,
    "canary-failed": canary_failed,
    "gaps-in-the-log": gaps_in_the_log,
}
