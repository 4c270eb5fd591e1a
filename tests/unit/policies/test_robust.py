"""`robust`: a fleet for worse worlds, routed as it is planned, with nothing dropped at nominal for their sake."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import linprog

from experiments.replay.controller import nominal_problem
from experiments.replay.stress import rerouted
from experiments.scenario.scenario import load_scenario
from policies.checking.plan import check
from policies.checking.random_problem import random_problem, restricted, small_problem, with_types
from policies.heuristics.routing import route, route_deployments
from policies.limits import Protection
from policies.registry import make_policy
from policies.robust import policy as robust
from policies.robust.kinds import parse_kind
from policies.robust.objective import Objective
from policies.robust.scenarios import DEMAND_LEVELS, demands, spread
from policies.robust.search import FleetSearch
from simulator.errors import InputError
from simulator.planning.plan import PlanStatus, plan_arrays, plan_cost_usd
from simulator.planning.policy import StoppingRule, demand_levels
from simulator.planning.problem import CapacityRows, DemandQuantiles, MovingTerms

KINDS = ("box=1.3", "gamma=1,1.3", "mean", "cvar=0.9")
MOVING = MovingTerms(provisioning_s=600.0, load_gb_per_s=0.5, drain_s=120.0)


@pytest.fixture(scope="module")
def base():
    return nominal_problem(load_scenario("paper-base"), period_h=24.0)


def planned(name, problem, incumbent=None, **stop):
    return make_policy(name).plan(problem, incumbent=incumbent, stop=StoppingRule(**stop), seed=0)


def unmet_usd(problem, plan):
    return float(problem.unmet_usd @ plan_arrays(problem, plan).unmet)


def objective_of(kind, problem, unmet_limit_usd=np.inf):
    chosen = parse_kind(kind)
    limit_usd = min(unmet_limit_usd, float(problem.unmet_usd.sum()))
    return Objective(chosen.scenarios(problem), chosen.tail, limit_usd)


def value_usd(objective, replicas):
    deployed = np.flatnonzero(replicas)
    nothing = np.zeros(len(objective.scenarios))
    costs_usd, _ = objective.costs_usd(deployed, replicas[deployed], at_least=nothing, below_usd=np.inf, move_usd=0.0)
    return float(objective.measure(costs_usd))


# -- what it is for ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", ["exact", "agh+"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_pays_for_less_under_stress(base, kind, inner):
    best, ahead = planned("exact", base), planned(f"robust[{kind}:{inner}]", base)
    assert check(base, ahead).accepted
    assert ahead.bound_usd is None
    assert best.cost_usd < ahead.cost_usd < 1.6 * best.cost_usd
    assert ahead.unmet == ()
    before, after = (rerouted(base, plan_arrays(base, p), 1.3, 1.3) for p in (best, ahead))
    assert after["cost_usd"] < 0.41 * before["cost_usd"]
    assert after["unmet_share"] <= 0.003


def test_a_box_is_the_fleet_of_headroom_where_there_is_money(base):
    assert planned("robust[box=1.3:exact]", base).deployments == planned("headroom[1.3:exact]", base).deployments


@pytest.mark.parametrize("kind", ["box=1", "gamma=0,1.3"])
def test_without_uncertainty_it_is_the_policy_inside(base, kind):
    assert planned(f"robust[{kind}:exact]", base).cost_usd == pytest.approx(planned("exact", base).cost_usd)


@pytest.mark.parametrize("inner", ["exact", "gh"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "share", [pytest.param(0.9, marks=pytest.mark.slow), 0.6, pytest.param(0.4, marks=pytest.mark.slow), 0.1]
)
def test_with_little_money_nothing_more_is_dropped_at_nominal(base, kind, inner, share):
    tight = replace(base, budget_usd=share * base.budget_usd)
    plan, nominal = planned(f"robust[{kind}:{inner}]", tight), planned(inner, tight)
    assert check(tight, plan).accepted
    assert unmet_usd(tight, plan) <= unmet_usd(tight, nominal) + 1e-6


def test_headroom_does_drop_load_for_it(base):
    """What the limit is for: planned at the factor alone, a tight budget is spent on what the factor asks for."""
    lost = []
    for share in (0.9, 0.7):
        tight = replace(base, budget_usd=share * base.budget_usd)
        lost.append(
            unmet_usd(tight, planned("headroom[1.3:exact]", tight)) > unmet_usd(tight, planned("exact", tight)) + 1
        )
    assert any(lost)


# -- the scenarios ----------------------------------------------------------------------------------------------------


def test_a_scenario_is_the_world_that_stress_asks_about(base):
    """The routing in an inflated problem is stage 2 of the paper: `route` at those factors."""
    replicas = plan_arrays(base, planned("gh", base)).replicas
    deployed = np.flatnonzero(replicas)
    objective = objective_of("mean", base)
    factors = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5)
    planned_demand = [s for s in range(len(objective.scenarios)) if (objective.scenarios[s].demand == 1).all()]
    assert len(planned_demand) == len(factors)
    for s, factor in zip(planned_demand, factors, strict=True):
        made = objective.route(s, deployed, replicas[deployed])
        stressed = rerouted(base, plan_arrays(base, planned("gh", base)), factor, factor)
        assert made.cost_usd == pytest.approx(stressed["cost_usd"])


def test_weights_are_a_distribution_with_the_nominal_world_the_likeliest(base):
    scenarios = spread(base)
    weights = [scenario.weight for scenario in scenarios]
    assert sum(weights) == pytest.approx(1)
    assert len(scenarios) == 18
    assert scenarios[0].problem is base
    assert max(weights) == weights[0]


def test_demand_is_that_of_the_problem_s_quantiles(base):
    types = len(base.query_types)
    factor = np.stack([np.linspace(0.5, 0.7, types), np.linspace(1.0, 1.1, types), np.linspace(1.5, 1.9, types)])
    known = replace(base, demand_quantiles=DemandQuantiles(levels=(0.05, 0.5, 0.99), factor=factor))
    (planned_demand, half), *others = demands(known)
    assert (planned_demand == 1).all()
    assert half == 0.5
    assert np.array_equal([demand for demand, _ in others], factor)
    assert [weight for _, weight in others] == pytest.approx([0.5 * 0.275, 0.5 * (0.745 - 0.275), 0.5 * 0.255])
    assert [float(demand[0]) for demand, _ in demands(base)] == pytest.approx([1.0, 0.8797, 1.1367], abs=1e-4)
    highest = [s for s in spread(known) if np.array_equal(s.demand, factor[2])]
    assert len(highest) == 6
    assert highest[0].problem.arrival_per_h == pytest.approx(base.arrival_per_h * factor[2])


def test_quantiles_of_another_shape_are_refused(base):
    with pytest.raises(InputError, match="demand_quantiles has shape"):
        replace(base, demand_quantiles=DemandQuantiles(levels=(0.1, 0.9), factor=np.ones((1, len(base.query_types)))))


def test_quantiles_go_with_their_types(base):
    factor = np.arange(1.0, 2 * len(base.query_types) + 1).reshape(2, -1)
    known = replace(base, demand_quantiles=DemandQuantiles(levels=(0.1, 0.9), factor=factor))
    assert np.array_equal(restricted(known, [3, 1], [0, 5]).demand_quantiles.factor, factor[:, [3, 1]])


def test_more_demand_to_come_is_planned_for():
    problem = random_problem(types=4, models=3, tiers=3, seed=2)
    gpus = []
    for factor in (1.0, 6.0):
        known = DemandQuantiles(levels=DEMAND_LEVELS, factor=np.full((2, 4), factor))
        gpus.append(planned("robust[mean:agh+]", replace(problem, demand_quantiles=known)).gpus)
    assert gpus[0] < gpus[1]


# -- the measure ------------------------------------------------------------------------------------------------------


def test_the_tail_is_a_mean_of_the_dearest():
    problem = small_problem(0, 0)
    objective = objective_of("cvar=0.9", problem)
    objective.weight = np.array([0.5, 0.3, 0.15, 0.05])
    costs = np.array([1.0, 100.0, 2.0, 40.0])
    objective.tail = 0.9
    assert objective.measure(costs) == pytest.approx(100.0)
    objective.tail = 0.5
    assert objective.measure(costs) == pytest.approx((0.3 * 100 + 0.05 * 40 + 0.15 * 2) / 0.5)
    objective.tail = 0.0
    assert objective.measure(costs) == pytest.approx(0.5 + 30 + 0.3 + 2)
    together = objective.measure(np.stack([costs, 2 * costs], axis=1))
    assert together == pytest.approx(float(objective.measure(costs)) * np.array([1, 2]))


@pytest.mark.parametrize("kind", [*KINDS, "gamma=1.5,1.4"])
@pytest.mark.parametrize("number", [0, 2, 8])
def test_bounds_of_fleets_are_below_what_they_cost(kind, number):
    problem = with_types(small_problem(0, number), unmet_cap=1.0)
    objective = objective_of(kind, problem, 0.3 * float(problem.unmet_usd.sum()))
    search = FleetSearch(objective, robust.Moving.none(problem), robust.Clock(0.0, None))
    o = search.options
    fleets = np.array([f for f in itertools.combinations(range(min(len(o), 9)), 2) if o.pair[f[0]] != o.pair[f[1]]])
    dear = np.full(len(objective.scenarios), 1e5)
    _, kept, least = objective.bounds_usd(
        fleets,
        o.configuration,
        o.replicas,
        o.fixed_usd,
        best_usd=dear,
        below_usd=np.full(len(fleets), 1e9),
    )
    looked_at = 0
    for n, fleet in enumerate(fleets):
        routings = [objective.route(s, o.configuration[fleet], o.replicas[fleet]) for s in range(len(dear))]
        if routings[0] is None:
            continue
        assert n in kept
        costs = np.array([routing.cost_usd for routing in routings])
        assert (least[:, kept == n][:, 0] <= costs * (1 + 1e-7) + 1e-7).all()
        looked_at += 1
    assert looked_at > 3


# -- a budget of bad cases ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 1.5, 2.0, 9.0])
def test_a_protected_routing_is_that_of_all_its_cases(gamma):
    """By brute force: the same program with a row for every set of deployments that may be worse."""
    problem = with_types(random_problem(types=3, models=3, tiers=2, seed=5), delay_penalty_usd_per_query_s=0.0)
    problem = replace(problem, error=problem.error * 1.5, delay_s=problem.delay_s * 1.5)
    deployed = np.array([0, 4, 9, 13]) % len(problem.configurations)
    replicas = np.array([2, 1, 1, 1])
    factor = np.array([1.3, 1.5, 1.0])
    made = route_deployments(problem, deployed, replicas, protection=Protection(gamma, factor))
    types, count = 3, len(deployed)
    cost = np.concatenate([np.repeat(problem.token_storage_usd, count), problem.unmet_usd])
    rows, limits = [], []
    for use, limit in ((problem.delay_s, problem.delay_slo_s), (problem.error, problem.error_slo)):
        for i in range(types):
            for order in itertools.permutations(range(count)):
                part = np.clip(gamma - np.argsort(order), 0.0, 1.0)
                row = np.zeros(len(cost))
                row[i * count : (i + 1) * count] = use[i, deployed] * (1 + part * (factor[i] - 1))
                rows.append(row)
                limits.append(limit[i])
    for k in range(count):
        for use, limit in ((problem.load, problem.cap[deployed[k]] * replicas[k]), (problem.kv, replicas[k])):
            row = np.zeros(len(cost))
            row[[i * count + k for i in range(types)]] = use[:, deployed[k]]
            rows.append(row)
            limits.append(limit)
    served = np.hstack([np.kron(np.eye(types), np.ones(count)), np.eye(types)])
    truth = linprog(cost, A_ub=np.array(rows), b_ub=limits, A_eq=served, b_eq=np.ones(types), bounds=(0, 1))
    fixed_usd = problem.rent_usd[deployed] @ replicas + problem.model_storage_usd[deployed].sum()
    assert made.cost_usd == pytest.approx(fixed_usd + truth.fun)
    nominal = route_deployments(problem, deployed, replicas)
    assert (made.cost_usd > nominal.cost_usd + 1) == (gamma > 0), "the cases matter here"


@pytest.mark.parametrize("rows", CapacityRows)
def test_all_deployments_worse_is_the_box(base, rows):
    """The delay penalty and the KV cache, too."""
    problem = base if rows is CapacityRows.PAPER else small_problem(0, 2)
    objectives = [objective_of(kind, problem) for kind in ("gamma=99,1.3", "box=1.3", "gamma=1,1.3", "box=1")]
    for fleet in (planned("gh", problem), planned("agh", problem)):
        replicas = plan_arrays(problem, fleet).replicas
        all_worse, box, one, none = (value_usd(objective, replicas) for objective in objectives)
        assert all_worse == pytest.approx(box)
        assert none * (1 + 1e-9) < one <= box * (1 + 1e-9)


# -- as a policy ------------------------------------------------------------------------------------------------------


def test_the_limit_on_unmet_demand_holds_in_the_routing(base):
    """Serving what costs more than its penalty, if that is asked for."""
    cheap = with_types(base, unmet_penalty_usd_per_query=1e-5)
    replicas = plan_arrays(base, planned("gh", base)).replicas
    deployed = np.flatnonzero(replicas)
    free = route_deployments(cheap, deployed, replicas[deployed])
    left_usd = float(cheap.unmet_usd @ free.unmet)
    assert left_usd > 0
    for limit_usd in (0.0, 0.5 * left_usd):
        kept = route_deployments(cheap, deployed, replicas[deployed], unmet_limit_usd=limit_usd)
        assert cheap.unmet_usd @ kept.unmet <= limit_usd + 1e-9
        assert kept.cost_usd > free.cost_usd
    assert route_deployments(cheap, deployed, replicas[deployed], unmet_limit_usd=left_usd).cost_usd == pytest.approx(
        free.cost_usd
    )


def test_it_keeps_the_incumbent_that_the_policy_inside_keeps(base):
    policy = make_policy("robust[box=1.2:static[gh]]")
    first = policy.plan(base, incumbent=None, stop=StoppingRule(), seed=0)
    assert policy.plan(base, incumbent=first, stop=StoppingRule(), seed=0) is first
    assert first.policy == policy.name == "robust[box=1.2:static[gh]]"


def test_moving_has_its_price():
    """Where leaving the fleet in force costs a fortune it stays, though another one is better by itself."""
    problem = random_problem(types=4, models=3, tiers=3, seed=2)
    best = planned("robust[mean:agh+]", problem)
    before = planned("robust[box=1.5:agh+]", problem)
    assert before.deployments != best.deployments
    dear = replace(problem, moving=replace(MOVING, weight=1e4))
    assert planned("robust[mean:agh+]", dear, incumbent=before).deployments == before.deployments
    assert planned("robust[mean:agh+]", problem, incumbent=before).deployments == best.deployments


def test_effort_ends_the_search(base, monkeypatch):
    spent = []
    improve = FleetSearch.improve

    def noting(search, most=2):
        improve(search, most)
        spent.append(search.clock.spent)

    monkeypatch.setattr(FleetSearch, "improve", noting)
    planned("robust[cvar=0.9:agh+]", base, effort=40)
    few = spent[-1]
    planned("robust[cvar=0.9:agh+]", base)
    assert few < 200 < spent[-1]


def test_a_plan_that_the_clock_cut_short_says_so(base):
    assert planned("robust[cvar=0.9:agh+]", base, time_limit_s=0.2).status is PlanStatus.TIME_LIMIT
    assert planned("robust[box=1.3:agh+]", small_problem(0, 0), time_limit_s=60.0).status is PlanStatus.FEASIBLE


def test_a_solver_that_fails_costs_no_plan(base, monkeypatch):
    def failing(*_, **__):
        raise robust.RunError("HiGHS failed")

    monkeypatch.setattr("policies.robust.objective.route_deployments", failing)
    plan = planned("robust[mean:exact]", base)
    assert plan.cost_usd == pytest.approx(planned("exact", base).cost_usd)
    assert check(base, plan).accepted


class TestNames:
    @pytest.mark.parametrize(
        ("text", "name"),
        [
            ("robust", "robust[box=1.3:agh+]"),
            ("robust[mean]", "robust[mean:agh+]"),
            ("robust[box=1.20:exact]", "robust[box=1.2:exact]"),
            ("robust[gamma=1.5,1.3:milp]", "robust[gamma=1.5,1.3:milp]"),
            ("robust[cvar=0.95:agh[-m1,-local]]", "robust[cvar=0.95:agh[-m1,-local]]"),
        ],
    )
    def test_what_they_mean(self, text, name):
        assert make_policy(text).name == name
        assert make_policy(name).name == name

    @pytest.mark.parametrize(
        "options",
        [
            *("", "1.3", "median", "box", "box=", "box=x", "box=0.9", "box=inf", "box=nan", "box=1,2", "box=1.3,exact"),
            *("gamma=1", "gamma=-1,1.3", "gamma=1,0.9", "mean=2", "cvar", "cvar=0", "cvar=1", "cvar=1.5"),
        ],
    )
    def test_options_that_are_none(self, options):
        with pytest.raises(InputError, match=r"policy 'robust': expected \[KIND:POLICY\] with box=FACTOR, gamma="):
            make_policy(f"robust[{options}:agh+]")

    @pytest.mark.parametrize("inner", ["", "nonsense", "agh[-m9]"])
    def test_policies_that_are_none(self, inner):
        with pytest.raises(InputError, match=r"unknown policy ''|nonsense|-m9"):
            make_policy(f"robust[mean:{inner}]")

    def test_who_heeds_quantiles_of_the_demand(self):
        heeding = ["robust[mean:agh+]", "robust[cvar=0.9:milp]", "static[robust[mean]]", "headroom[1.3:robust[mean]]"]
        heeding.append("robust[box=1.3:robust[mean]]")
        assert [demand_levels(make_policy(name)) for name in heeding] == [(0.1, 0.9)] * 5
        others = ["agh+", "robust[box=1.3:agh+]", "static[gh]", "headroom[1.3:gh]"]
        assert [demand_levels(make_policy(name)) for name in others] == [()] * 4


def test_the_fleet_of_the_plan_is_routed_at_nominal(base):
    plan = planned("robust[box=1.3:exact]", base)
    arrays = plan_arrays(base, plan)
    again = route(base, arrays.replicas)
    assert plan.cost_usd == pytest.approx(sum(plan_cost_usd(base, again).values()))
