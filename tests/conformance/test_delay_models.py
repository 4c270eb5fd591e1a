"""What every delay model of the registry owes, and that one more is a class and a line of the registry."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

from simulator.catalog import load_catalog
from simulator.delay import DELAY_MODELS, StepCost, TwoPhaseDelay
from tests.verify_samples import SMALL

CATALOG = load_catalog()
MODEL = CATALOG.models["llama-3.1-8b"]


@pytest.mark.parametrize("name", DELAY_MODELS)
@pytest.mark.parametrize("tier", ["h100-80-fp8", "h100-80-fp16"])
def test_times_are_positive_and_more_gpus_on_nvlink_are_no_slower(name, tier):
    delay = DELAY_MODELS[name](CATALOG)
    costs = [delay.step_cost(MODEL, CATALOG.tiers[tier], n, 1) for n in (1, 2, 4)]
    assert all(getattr(cost, field) > 0 for cost in costs for field in StepCost.__slots__)
    assert (np.diff([cost.step_s(2048, 64, 64_000) for cost in costs]) <= 0).all()
    assert delay.request_delay(MODEL, CATALOG.tiers[tier], 1, 1).delay_s(1000, 100) > 0


@dataclass(frozen=True, slots=True)
class Flat:
    """Every step takes 20 ms, whatever is in it but prompts."""

    def request_delay(self, model, tier, n, m):
        return TwoPhaseDelay(prefill_s_per_token=1e-5, decode_s_per_token=0.02)

    def step_cost(self, model, tier, n, m):
        return StepCost(base_s=0.02, prefill_s_per_token=1e-5, decode_s_per_sequence=0.0, context_s_per_token=0.0)


def test_one_more_is_a_class_and_a_line(monkeypatch, run_cli, tmp_path):
    (tmp_path / "small.toml").write_text(SMALL)
    monkeypatch.setitem(DELAY_MODELS, "flat", lambda catalog: Flat())
    done = run_cli("replay", "--policy", "gh", "--scenario", tmp_path / "small.toml", "--delay-model", "flat", "--json")
    assert done.code == 0, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    assert run["served"] > 0
    assert run["tpot_s"]["p50"] == pytest.approx(0.02, rel=0.2)
