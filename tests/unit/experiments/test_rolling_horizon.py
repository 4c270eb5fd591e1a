"""Re-planning under drifting demand: churn and money by hand, and what a weight means."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.studies.tasks import perform
from experiments.studies.tasks.rolling_horizon import WALK_LIMIT, demand_walk, interval_problems, walk_along
from policies.checking.random_problem import random_problem, with_demand
from policies.registry import make_policy
from simulator.catalog.configuration import Configuration, ModelSize, TierSize
from simulator.errors import InfeasibleError
from simulator.planning.paper_rows import paper_problem
from simulator.planning.plan import PlanArrays, PlanStatus, build_plan
from simulator.planning.policy import StoppingRule
from simulator.planning.problem import MovingTerms, QueryType

STOP = StoppingRule(effort=30, starts=3)
PARTS = ("rent_usd", "storage_usd", "delay_penalty_usd", "unmet_penalty_usd", "moving_usd")
INTERVAL_H = 1 / 12


def one_configuration(**changes):
    """One type, one configuration of 2 GPUs at 7.2 USD/h; its demand fills 0.8 of a replica."""
    parts = {
        "name": "tiny",
        "period_h": 1.0,
        "budget_usd": 1000.0,
        "storage_price_usd_per_gb_h": 0.01,
        "storage_capacity_gb": 100.0,
        "max_replicas": 9,
        "query_types": [
            QueryType(
                name="q",
                arrival_per_h=3600.0,
                input_tokens=60.0,
                output_tokens=40.0,
                delay_slo_s=30.0,
                error_slo=0.1,
                delay_penalty_usd_per_query_s=1e-4,
                unmet_penalty_usd_per_query=0.01,
                unmet_cap=0.0,
            )
        ],
        "models": [ModelSize(name="m", parameters_b=10.0, weights_gb=20.0, kv_mb_per_token=1e-6)],
        "tiers": [
            TierSize(
                name="t",
                memory_gb=24.0,
                compute_tflops=2.5,  # 100 tokens/s of 0.02 TFLOP each need 2 of 2 x 2.5 x 0.5
                compute_efficiency=0.5,
                bandwidth_gb_s=1000.0,
                price_usd_per_gpu_h=3.6,
                weight_factor=1.0,
            )
        ],
        "configurations": [Configuration(model="m", tier="t", tensor_parallel=2, pipeline_parallel=1)],
        "delay_s": np.array([[2.0]]),
        "error": np.array([[0.01]]),
    }
    terms = MovingTerms(provisioning_s=60.0, load_gb_per_s=2.0, drain_s=30.0)
    return replace(paper_problem(**(parts | changes)), moving=terms)


def intervals(problem, *factors):
    return interval_problems(problem, np.array(factors, dtype=float)[:, None], interval_h=INTERVAL_H)


class Enough:
    """Rents just enough replicas of the only configuration, and notes the weights that it is shown."""

    name = "enough"

    def __init__(self):
        self.seen = []

    def plan(self, problem, *, incumbent, stop, seed):
        self.seen.append(problem.moving.weight)
        replicas = np.array([math.ceil(float(problem.load[0, 0]) - 1e-9)])
        arrays = PlanArrays(replicas, np.ones((1, 1)), np.zeros(1))
        return build_plan(problem, arrays, policy=self.name, status=PlanStatus.FEASIBLE, seconds=0.0)


class OnlyOnce(Enough):
    """Finds no plan but the first."""

    def plan(self, problem, *, incumbent, stop, seed):
        if incumbent is not None:
            raise InfeasibleError("no plan")
        return super().plan(problem, incumbent=incumbent, stop=stop, seed=seed)


class Unpriced:
    """A policy that is told nothing of moving."""

    def __init__(self, inner):
        self.inner, self.name = inner, inner.name

    def plan(self, problem, *, incumbent, stop, seed):
        return self.inner.plan(replace(problem, moving=None), incumbent=incumbent, stop=stop, seed=seed)


def followed(policy, problems, weight=1.0, every=1):
    row, _ = walk_along(policy, problems, weight=weight, every=every, stop=STOP, seed=0)
    return SimpleNamespace(**row, churn_per_h=row["replicas_started_per_h"] + row["replicas_stopped_per_h"])


# -- by hand


@pytest.mark.parametrize("weight", [0.0, 1.0, 8.0])
def test_churn_and_money_by_hand(weight):
    """1, 3, then 2 replicas: two starts of 70 s and a stop of 100 s at 0.002 USD/s, whatever the weight."""
    policy = Enough()
    outcome = followed(policy, intervals(one_configuration(), 1.0, 3.0, 2.0), weight)
    assert policy.seen == [weight] * 3
    assert outcome.moving_usd == pytest.approx(2 * 0.14 + 0.20)
    assert outcome.rent_usd == pytest.approx((1 + 3 + 2) * 7.2 / 12)
    assert outcome.storage_usd == pytest.approx(3 * 20 * 0.01 / 12)
    assert outcome.delay_penalty_usd == pytest.approx((1 + 3 + 2) * 300 * 2.0 * 1e-4)
    assert outcome.unmet_penalty_usd == 0
    assert outcome.cost_usd + outcome.moving_usd == pytest.approx(sum(getattr(outcome, part) for part in PARTS))
    assert outcome.replicas_started_per_h == pytest.approx(2 / 0.25)
    assert outcome.replicas_stopped_per_h == pytest.approx(1 / 0.25)
    assert outcome.churn_per_h == pytest.approx(3 / 0.25)
    assert outcome.gpus_started_per_h == pytest.approx(4 / 0.25)
    assert outcome.intervals_changed == 2
    assert (outcome.intervals_infeasible, outcome.intervals_unserved, outcome.unmet_share) == (0, 0, 0.0)


def test_never_moving_keeps_the_first_fleet_and_routes_it_anew():
    """Unmet demand is capped at nothing: three times the load of one replica cannot be served at all."""
    outcome = followed(Enough(), intervals(one_configuration(), 1.0, 0.5, 3.0), every=3)
    assert (outcome.churn_per_h, outcome.moving_usd, outcome.intervals_changed) == (0.0, 0.0, 0)
    assert outcome.rent_usd == pytest.approx(3 * 7.2 / 12)
    assert (outcome.intervals_infeasible, outcome.intervals_unserved) == (0, 1)
    assert outcome.unmet_share == pytest.approx(3 / 4.5)
    assert outcome.unmet_penalty_usd == pytest.approx(3 * 300 * 0.01)
    assert outcome.delay_penalty_usd == pytest.approx(1.5 * 300 * 2.0 * 1e-4)


def test_an_interval_without_a_plan_keeps_the_fleet_and_is_counted():
    outcome = followed(OnlyOnce(), intervals(one_configuration(), 1.0, 0.5, 3.0))
    assert (outcome.intervals_infeasible, outcome.intervals_unserved) == (2, 1)
    once = followed(Enough(), intervals(one_configuration(), 1.0, 0.5, 3.0), every=3)
    assert vars(outcome) == {**vars(once), "intervals_infeasible": 2}


def test_demand_that_may_stay_unmet_is_routed_as_far_as_it_goes():
    problem = one_configuration()
    problem = replace(problem, query_types=tuple(replace(q, unmet_cap=1.0) for q in problem.query_types))
    outcome = followed(OnlyOnce(), intervals(problem, 1.0, 2.0))
    assert (outcome.intervals_infeasible, outcome.intervals_unserved) == (1, 0)
    assert outcome.unmet_share == pytest.approx((2 - 1 / 0.8) / 3)


def test_without_a_first_plan_there_is_nothing_to_study():
    with pytest.raises(InfeasibleError, match="unmet caps"):
        followed(make_policy("gh"), intervals(one_configuration(max_replicas=1), 3.0, 1.0))


# -- weights and walks


@pytest.fixture(scope="module")
def problem():
    """Demand that fills several replicas of a deployment: there is something to move."""
    terms = MovingTerms(provisioning_s=60.0, load_gb_per_s=1.0, drain_s=4.0)
    drawn = random_problem(types=3, models=3, tiers=3, seed=4, max_replicas=30, budget_usd=20000.0)
    return replace(with_demand(drawn, np.full(3, 10.0)), moving=terms)


@pytest.fixture(scope="module")
def drifting(problem):
    return interval_problems(problem, demand_walk(3, 6, sigma=0.3, seed=1), interval_h=INTERVAL_H)


@pytest.mark.parametrize("name", ["gh", "agh", "agh+"])
def test_weight_zero_is_to_know_nothing_of_moving(name, drifting):
    ignoring = followed(make_policy(name), drifting, 0.0)
    unpriced = followed(Unpriced(make_policy(name)), drifting, 1.0)
    assert ignoring == unpriced
    assert ignoring.churn_per_h > 0


@pytest.mark.parametrize("name", ["gh", "agh", "agh+"])
@pytest.mark.parametrize("weight", [0.0, 1.0, 8.0])
def test_steady_demand_moves_nothing(name, weight, problem):
    steady = interval_problems(problem, demand_walk(3, 3, sigma=0.0, seed=1), interval_h=INTERVAL_H)
    outcome = followed(make_policy(name), steady, weight)
    assert (outcome.churn_per_h, outcome.moving_usd, outcome.intervals_changed) == (0.0, 0.0, 0)


@pytest.mark.parametrize("name", ["gh", "agh", "agh+"])
def test_who_heeds_what_moving_costs_moves_less(name, drifting):
    at = {weight: followed(make_policy(name), drifting, weight) for weight in (0.0, 1.0, 1000.0)}
    assert at[1.0].moving_usd < at[0.0].moving_usd
    if name != "gh":  # which builds anew from the fleet in force, and may leave it at any price
        assert at[1000.0].churn_per_h == 0


def test_walks_are_clipped_fair_and_of_their_own_seed():
    walk = demand_walk(3, 4000, sigma=0.2, seed=0)
    assert (walk[0] == 1).all()
    assert walk.min() == 1 / WALK_LIMIT
    assert walk.max() == WALK_LIMIT
    assert not np.array_equal(walk, demand_walk(3, 4000, sigma=0.2, seed=1))
    assert np.array_equal(walk, demand_walk(3, 4000, sigma=0.2, seed=0))
    one_step = np.array([demand_walk(50, 2, sigma=0.04, seed=seed)[1] for seed in range(40)])
    assert one_step.mean() == pytest.approx(1.0, abs=4 * 0.04 / math.sqrt(one_step.size))
    assert np.log(one_step).std() == pytest.approx(0.04, rel=0.1)


def test_an_interval_has_its_part_of_the_budget_and_its_own_demand(problem):
    walk = demand_walk(3, 3, sigma=0.3, seed=1)
    made = interval_problems(problem, walk, interval_h=INTERVAL_H)
    assert len({p.name for p in made}) == 3
    for p, factor in zip(made, walk, strict=True):
        assert p.period_h == INTERVAL_H
        assert p.budget_usd / p.period_h == pytest.approx(problem.budget_usd / problem.period_h)
        assert p.arrival_per_h == pytest.approx(problem.arrival_per_h * factor)
        assert p.load == pytest.approx(problem.load * factor[:, None])


def test_between_two_plans_the_fleet_stays_and_is_routed_anew():
    """Planned at 1, 3 and 2 of the demand, and kept for a step each: 1, 1, 3, 3, 2, 2 replicas."""
    policy = Enough()
    outcome = followed(policy, intervals(one_configuration(), 1.0, 0.5, 3.0, 1.0, 2.0, 0.5), every=2)
    assert len(policy.seen) == 3
    assert outcome.rent_usd == pytest.approx((1 + 1 + 3 + 3 + 2 + 2) * 7.2 / 12)
    assert outcome.gpu_hours == pytest.approx(12 * 2 / 12)
    assert outcome.delay_penalty_usd == pytest.approx(8.0 * 300 * 2.0 * 1e-4)
    assert (outcome.intervals_changed, outcome.intervals_infeasible) == (2, 0)


def test_a_plan_is_for_all_the_steps_until_the_next():
    """A problem of two steps has twice the rent: what moving costs is set against what it saves until the next plan."""

    class Looks(Enough):
        def plan(self, problem, *, incumbent, stop, seed):
            self.seen.append((problem.period_h, problem.budget_usd))
            return super().plan(problem, incumbent=incumbent, stop=stop, seed=seed)

    policy = Looks()
    followed(policy, intervals(one_configuration(), 1.0, 1.0, 1.0), every=2)
    assert policy.seen[0] == (pytest.approx(2 / 12), pytest.approx(1000 * 2 / 12))
    assert policy.seen[2] == (pytest.approx(1 / 12), pytest.approx(1000 / 12))


def test_the_task_charges_moving_or_shows_it_apart():
    parameters = {
        "ground": {"scenario": "azure-2023"},
        "seed": 0,
        "policy": "gh",
        "sigma": 0.3,
        "step_s": 300.0,
        "steps": 4,
        "interval_s": 300.0,
        "weight": 0.0,
    }
    (charged,) = perform("rolling_horizon", parameters).rows
    (apart,) = perform("rolling_horizon", {**parameters, "charge_moving": False}).rows
    assert charged["moving_usd"] == apart["moving_usd"] > 0
    assert charged["cost_usd"] == pytest.approx(apart["cost_usd"] + apart["moving_usd"])
    assert (charged["policy"], charged["interval_s"], charged["intervals"]) == ("gh", 300.0, 4)
