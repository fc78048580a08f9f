from __future__ import annotations

import pytest

from penstock.errors import PenstockError
from penstock.sim.kernel import ARRIVAL, Kernel


def test_things_happen_in_order_and_arrivals_first() -> None:
    kernel, seen = Kernel(), []
    kernel.at(2.0, seen.append, "step")
    kernel.at(2.0, seen.append, "arrival", ARRIVAL)
    kernel.at(1.0, lambda _: kernel.at(3.0, seen.append, "later"))
    kernel.at(2.0, seen.append, "second step")
    kernel.run()
    assert seen == ["arrival", "step", "second step", "later"]
    assert kernel.now() == 3.0


def test_until_leaves_the_rest_and_the_past_is_refused() -> None:
    kernel, seen = Kernel(), []
    kernel.at(1.0, seen.append, 1)
    kernel.at(5.0, seen.append, 5)
    kernel.run(2.0)
    assert (seen, kernel.now()) == ([1], 2.0)
    kernel.at(0.5, seen.append, 0)
    with pytest.raises(PenstockError, match="backwards"):
        kernel.run()
