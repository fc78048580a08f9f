from __future__ import annotations

import json

import pytest

from penstock.core.step_time import StepTime, Work
from penstock.errors import ConfigError
from penstock.sim.costs import FittedCosts, RooflineCosts, decode_run, fitted, read_costs
from penstock.sizing.hardware import table
from penstock.sizing.precision import precision
from penstock.sizing.roofline import Roofline
from tests.sizing.models import LLAMA_8B, shape


def test_the_roofline_is_asked_with_means() -> None:
    roofline = Roofline(shape(LLAMA_8B), precision("bf16"), table()["H100"])
    costs = RooflineCosts(roofline)
    assert costs.seconds(Work(8, 8000)) == roofline.step(0, 0, 8, 1000).seconds
    assert costs.seconds(Work(0, 0, 512, 512 * 300)) == roofline.step(512, 300, 0, 0).seconds


def test_a_run_of_decodes_is_linear_and_right_at_both_ends() -> None:
    costs = RooflineCosts(Roofline(shape(LLAMA_8B), precision("bf16"), table()["H100"]))
    run = decode_run(costs, 32, 32_000, 200)
    exact = [costs.seconds(Work(32, 32_000 + 32 * i)) for i in range(200)]
    assert run == pytest.approx(exact, rel=1e-3)
    assert decode_run(costs, 2, 100, 1) == [costs.seconds(Work(2, 100))]


def test_fitted_costs_survive_their_file_and_have_a_floor() -> None:
    costs = FittedCosts(StepTime((0.0, 1e-3, 0.0, 0.0, 2e-3, 0.0)), 5e-3)
    again = read_costs(json.dumps(costs.to_dict()), "costs.json")
    assert again.seconds(Work(1, 10)) == 5e-3
    assert again.seconds(Work(10, 10)) == pytest.approx(1e-2)


@pytest.mark.parametrize(
    ("text", "told"),
    [("{", "no fitted"), ("{}", "step_time_s"), ('{"step_time_s": {"fixed": "x"}}', "no fitted")],
)
def test_other_files_are_refused(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read_costs(text, "costs.json")


def test_too_few_steps_are_refused() -> None:
    with pytest.raises(ConfigError, match="too few"):
        fitted([(Work(1, 1), 0.1)])
