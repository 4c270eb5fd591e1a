"""Verified plans keep what is said of them: on draws that the search never saw, by the limits as they are stated.

A plan that is accepted passes a further draw with a probability of at least 95 %. Over all cases of a test as many
draws as that allows have to be passed, at a level of 0.001; the limits are the plain ones, without the guard.
"""

from dataclasses import dataclass

import pytest
from scipy.stats import binom

from benchmarks.verified import small
from experiments import api
from experiments.scenario.scenario import load_scenario, with_changes
from experiments.verify.acceptance import CONFIDENCE
from experiments.verify.draws import ScenarioDraws, TraceDraws, refuse_short
from experiments.verify.loop import verify
from experiments.verify.search import VerifyOptions
from experiments.verify.trial import Bench
from policies.checking.plan import check
from policies.registry import make_policy

FURTHER = 20
UNSEEN = 10_000  # from this number on no search has made a draw
LEVEL = 1e-3
LEAST_OF_A_CASE = 17


@dataclass(frozen=True)
class Case:
    """Arrivals, and what came of the plan that was verified on them."""

    name: str
    passed: int
    slo_ratios: tuple[float, ...]


def held_by_a_verified_plan(name, scenario, draws, seed, effort=8):
    """Verify a plan, then simulate it on draws that were never made before, by the plain limits."""
    options = VerifyOptions(seed=seed, effort=effort)
    refuse_short(scenario, draws.learning, options.level)
    found = verify(scenario, draws, make_policy("agh+"), options)
    assert found.best is not None, name
    assert found.unseen < UNSEEN
    candidate = found.best.candidate
    assert check(candidate.problem, candidate.plan).accepted
    bench = Bench(scenario, found.slos, 1.0)
    trials = [bench.trial(candidate.plan, draws.fresh(UNSEEN + number)) for number in range(FURTHER)]
    if draws.held_out is not None:
        assert bench.trial(candidate.plan, draws.held_out).holds, name
    return Case(name, sum(trial.holds for trial in trials), tuple(trial.slo_ratio for trial in trials))


def hold(cases):
    """Whether the draws that were passed are as many as `CONFIDENCE` allows."""
    for case in cases:
        assert case.passed >= LEAST_OF_A_CASE, case
    draws = FURTHER * len(cases)
    least = int(binom.ppf(LEVEL, draws, CONFIDENCE))
    passed = sum(case.passed for case in cases)
    assert passed >= least, f"{passed} of {draws} draws, at least {least}: {cases}"


def of_scenario(name, seed, **changes):
    scenario = with_changes(small("2 models, 2 tiers"), {f"synthetic.{key}": value for key, value in changes.items()})
    draws = ScenarioDraws(scenario, seed=seed)
    return held_by_a_verified_plan(f"{name}, seed {seed}", scenario, draws, seed)


POISSON = {"profile": "expected", "duration_s": 600.0}
SYNTHETIC = {"profile": "azure-2023"}


def test_on_poisson_arrivals_and_synthetic_minutes():
    cases = [of_scenario("Poisson", seed, **POISSON) for seed in range(2)]
    hold([*cases, of_scenario("synthetic minutes", 0, **SYNTHETIC, duration_s=300.0)])


@pytest.mark.slow
def test_on_more_seeds_and_synthetic_hours():
    poisson = [of_scenario("Poisson", seed, **POISSON) for seed in range(2, 13)]
    hold([*poisson, *(of_scenario("synthetic hour", seed, **SYNTHETIC) for seed in range(7))])


@pytest.mark.slow
def test_on_the_whole_catalogue():
    scenario = load_scenario("azure-2023")
    draws = [ScenarioDraws(scenario, seed=seed) for seed in range(3)]
    hold([held_by_a_verified_plan(f"seed {seed}", scenario, own, seed) for seed, own in enumerate(draws)])


@pytest.mark.slow
@pytest.mark.parametrize("names", [("conv",), ("code",), ("conv", "code")], ids=" and ".join)
def test_on_real_traces(data_dir, names):
    """Bootstraps of the first four fifths, and the last fifth itself."""
    paths = [data_dir / "traces" / f"AzureLLMInferenceTrace_{name}.csv" for name in names]
    scenario = load_scenario("azure-2023")
    cases = []
    for seed in range(3):
        draws = TraceDraws(scenario, api.arrivals(scenario, list(map(str, paths))), hold_out=0.2, seed=seed)
        cases.append(held_by_a_verified_plan(f"{names}, seed {seed}", scenario, draws, seed))
    hold(cases)
