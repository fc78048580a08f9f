"""Two pipeline stages in steady decoding: how long the last one waits for the first.

    python -m benchmarks.engine.pipeline [--requests 16] [--output-len 64] [--pairs 3]

Each stage has one thread. "idle" is the last stage's share of the time in which it computes
nothing, while all requests decode; the cut's own imbalance is told beside it. "speed" is tokens/s
beside one process with one thread. Both need a core a stage, with nothing else running.
"""

from __future__ import annotations

from benchmarks.harness import (
    Driver,
    arguments,
    interleaved,
    median_ratio,
    random_ids,
    save,
    verdict,
)
from benchmarks.make_checkpoint import checkpoint
from penstock.engine.weights import read_config, read_plan
from penstock.layers.decoder import DecoderPlan
from penstock.parallel.stages import cut
from penstock.report.stats import median

IDLE = 0.10


def decode(driver: Driver, requests: int, output_len: int, seed: int) -> tuple[float, float]:
    """(tokens/s, the leader's idle share) while all requests decode."""
    scheduler = driver.engine.scheduler
    for i in range(requests):
        driver.add(random_ids(16, driver.info.vocab_size, (seed, i)), output_len)
    while scheduler.num_running < requests or driver.step().prefill_tokens:
        driver.step()
    began, busy_s, tokens = driver.clock.now(), 0.0, 0
    while scheduler.num_running == requests:
        stats = driver.step()
        busy_s += stats.device_s
        tokens += stats.decode_tokens
    took_s = driver.clock.now() - began
    driver.run()
    return tokens / took_s, 1 - busy_s / took_s


def main() -> None:
    given = arguments(__doc__ or "", requests=16, output_len=64)
    folder = checkpoint("tiny" if given.tiny else "l135")
    plan = read_plan(read_config(folder), folder / "config.json")
    assert isinstance(plan, DecoderPlan)
    costs, head = plan.costs
    (first, _) = cut(costs, head, 2)
    halves = (sum(costs[:first]), sum(costs[first:]) + head)
    imbalance = 1 - halves[1] / max(halves)
    common = {"max_num_seqs": given.requests, "num_threads": 1}
    two = Driver(folder, 1024, pipeline_parallel_size=2, **common)
    one = Driver(folder, 1024, **common)
    size = (given.requests, given.output_len)
    twos, ones = interleaved(
        given.pairs, lambda seed: decode(two, *size, seed), lambda seed: decode(one, *size, seed)
    )
    two.close()
    one.close()
    idle = median([share for _, share in twos])
    speed = median_ratio([rate for rate, _ in twos], [rate for rate, _ in ones])
    print(
        f"layers {first} + {len(costs) - first} and the head; the last stage's deficit "
        f"{imbalance:.1%}"
    )
    bound = IDLE + imbalance
    print(verdict("idle share of the last stage", idle, f"<= {bound:.2f}", idle <= bound))
    print(verdict("two stages / one process, tokens/s", speed, "> 1, at most 2", speed > 1))
    save(
        "pipeline",
        given,
        {"idle": idle, "imbalance": imbalance, "speed": speed, "two": twos, "one": ones},
    )


if __name__ == "__main__":
    main()
