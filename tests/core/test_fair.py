"""Fair shares as a pure policy: whoever serves by it keeps them, whatever comes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.events import Finished
from penstock.core.fair import FairShares
from penstock.core.request import BACKGROUND
from tests.core.test_scheduler import Rig
from tests.fakes import submission

TENANTS = st.lists(st.floats(0.25, 8), min_size=2, max_size=6)
COSTS = st.tuples(st.integers(1, 500), st.floats(0, 1), st.integers(0, 200))
MOST = 700


@settings(max_examples=200, deadline=None)
@given(TENANTS, st.lists(COSTS, min_size=1, max_size=60))
def test_shares_of_those_who_always_wait_differ_by_one_request(
    weights: list[float], costs: list[tuple[int, float, int]]
) -> None:
    """One slot: the next is served when the last has ended. At any time the tokens that two
    tenants were served, by their weights, differ by what one request of each may cost."""
    fair, served = FairShares(cached_cost=0.25), [0.0] * len(weights)
    shares = [(False, str(i)) for i in range(len(weights))]
    for share in shares:
        fair.comes(share, [other for other in shares if other < share])
    for prompt, cached_part, output in costs:
        i = min(range(len(weights)), key=lambda i: (fair.served(shares[i]), i))
        cached = int(prompt * cached_part)
        fair.charge_prompt(shares[i], weights[i], prompt, cached)
        fair.charge_output(shares[i], weights[i], output)
        served[i] += (prompt - cached + 0.25 * cached + output) / weights[i]
        for a in range(len(weights)):
            for b in range(len(weights)):
                bound = MOST / weights[a] + MOST / weights[b]
                assert served[a] - served[b] <= bound + 1e-6


@settings(max_examples=200, deadline=None)
@given(TENANTS, st.data())
def test_nobody_starves(weights: list[float], data: st.DataObject) -> None:
    """A tenant that waits is served after bounded work of each other, as they come and go."""
    fair = FairShares()
    shares = [(False, str(i)) for i in range(len(weights))]
    waiting: list[int] = [0]
    fair.comes(shares[0], [])
    passed = [0.0] * len(weights)
    for _ in range(40):
        coming = data.draw(st.integers(0, len(weights) - 1))
        if coming not in waiting:
            fair.comes(shares[coming], [shares[i] for i in waiting])
            waiting.append(coming)
        i = min(waiting, key=lambda i: (fair.served(shares[i]), i))
        if i == 0:
            return
        prompt = data.draw(st.integers(1, MOST))
        fair.charge_prompt(shares[i], weights[i], prompt, 0)
        passed[i] += prompt / weights[i]
        assert passed[i] <= 2 * MOST / weights[i], "it was served over and over before the other"
        if data.draw(st.booleans()):
            waiting.remove(i)


def test_nobody_saves_up_a_claim_by_staying_away() -> None:
    fair = FairShares()
    busy, late = (False, "busy"), (False, "late")
    fair.comes(busy, [])
    for _ in range(100):
        fair.charge_prompt(busy, 1.0, 100, 0)
    fair.comes(late, [busy])
    assert fair.served(late) == fair.served(busy) == 10_000
    newest = (False, "newest")
    fair.comes(newest, [])
    assert fair.served(newest) == 9_900, "with nobody there, from where the last was served"


def test_cached_tokens_count_their_fraction() -> None:
    fair = FairShares(cached_cost=0.5)
    fair.charge_prompt((False, "a"), 2.0, 100, 60)
    assert fair.served((False, "a")) == (40 + 30) / 2


def order_of(rig: Rig) -> list[str]:
    rig.run()
    return [event.id for event in rig.of(Finished)]


def test_a_flood_of_one_tenant_does_not_hold_up_another() -> None:
    rig = Rig(seqs=1)
    for n in range(20):
        rig.scheduler.add(submission(f"flood {n}", [n, 50, 51], 3, tenant="flood"))
    for n in range(3):
        rig.scheduler.add(submission(f"other {n}", [n, 60, 61], 3, tenant="other"))
    order = order_of(rig)
    assert sorted(order.index(f"other {n}") for n in range(3))[-1] <= 6
    assert [o for o in order if o.startswith("flood")] == [f"flood {n}" for n in range(20)]


def test_twice_the_weight_is_twice_the_share() -> None:
    rig = Rig(seqs=1)
    for n in range(30):
        for name, weight in (("one", 1.0), ("two", 2.0)):
            fields = {"tenant": name, "weight": weight}
            rig.scheduler.add(submission(f"{name} {n}", [n, 70, 71], 3, **fields))
    first = [name.split()[0] for name in order_of(rig)[:30]]
    assert 19 <= first.count("two") <= 21


def test_background_work_of_a_tenant_costs_its_others_nothing() -> None:
    rig = Rig(seqs=1)
    for n in range(5):
        fields = {"tenant": "a", "priority": BACKGROUND}
        rig.scheduler.add(submission(f"row {n}", [n, 80], 4, **fields))
    rig.run()
    for name in "ba":
        rig.scheduler.add(submission(name, [ord(name)], 2, tenant=name))
    assert [event.id for event in rig.of(Finished)][-5:] == [f"row {n}" for n in range(5)]
    rig.run()
    assert rig.scheduler._waiting.fair.served((False, "a")) == 3.0
