"""What holds of every robust plan, and of what fleets cost in worse worlds, on tiny problems with all limits."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.checking.plan import check
from policies.checking.random_problem import small_problem, with_demand, with_types
from policies.registry import make_policy
from policies.robust.kinds import parse_kind
from policies.robust.objective import Objective
from simulator.errors import InfeasibleError
from simulator.planning.plan import plan_arrays, plan_cost_usd
from simulator.planning.policy import StoppingRule
from tests.property.test_planners_exhaustive import problems

KINDS = ("box=1.3", "gamma=1,1.5", "mean", "cvar=0.8")


def planned(name, problem):
    return make_policy(name).plan(problem, incumbent=None, stop=StoppingRule(effort=200), seed=0)


@settings(max_examples=50, deadline=None)
@given(
    problem=st.one_of(problems(), st.builds(small_problem, st.integers(0, 99), st.integers(0, 99))),
    kind=st.sampled_from(KINDS),
    inner=st.sampled_from(["agh+", "exact", "gh"]),
    more=st.sampled_from([1.0, 1.05, 1.2]),
)
def test_a_plan_keeps_every_limit_and_drops_no_more_than_the_policy_inside(problem, kind, inner, more):
    """With hardly more money than the policy inside spends: there protection would cost load."""
    try:
        spent = plan_cost_usd(problem, plan_arrays(problem, planned(inner, problem)))
        money_usd = more * (spent["rental"] + spent["model_storage"] + spent["token_storage"])
        problem = replace(problem, budget_usd=min(problem.budget_usd, money_usd))
        nominal = planned(inner, problem)
    except InfeasibleError:
        with pytest.raises(InfeasibleError):
            planned(f"robust[{kind}:{inner}]", problem)
        return
    plan = planned(f"robust[{kind}:{inner}]", problem)
    assert check(problem, plan).accepted
    left_usd, most_usd = (float(problem.unmet_usd @ plan_arrays(problem, p).unmet) for p in (plan, nominal))
    assert left_usd <= most_usd + 1e-6 * float(problem.unmet_usd.sum())
    assert plan.bound_usd is None


@settings(max_examples=40, deadline=None)
@given(problem=problems(), kind=st.sampled_from(KINDS), draw=st.randoms(use_true_random=False))
def test_no_fleet_costs_less_in_a_harder_world(problem, kind, draw):
    """Than at nominal, unless there is less demand; than in the world before; and the tail is no less than the mean."""
    problem = with_types(problem, unmet_cap=1.0)
    chosen = parse_kind(kind)
    scenarios = chosen.scenarios(problem)
    objective = Objective(scenarios, chosen.tail, float(problem.unmet_usd.sum()))
    replicas = np.zeros(len(problem.configurations), dtype=np.int64)
    for columns in problem.configurations_of_pair.values():
        replicas[draw.choice(columns.tolist())] = draw.choice([0, 1, 2])
    deployed = np.flatnonzero(replicas)
    routings = [objective.route(s, deployed, replicas[deployed]) for s in range(len(scenarios))]
    if routings[0] is None:
        assert all(routing is None for routing in routings), "the rent alone is too dear"
        return
    cost_usd = np.array([routing.cost_usd for routing in routings])
    slack_usd = 1e-6 * max(1.0, float(cost_usd.max()))
    for s, scenario in enumerate(scenarios):
        assert cost_usd[s] >= cost_usd[0] - slack_usd or (scenario.demand < 1).any()
        for t, other in enumerate(scenarios):
            if t > 0 and (other.demand >= scenario.demand).all() and other.protection is None:
                harder = (other.problem.delay_s >= scenario.problem.delay_s).all()
                assert not harder or cost_usd[t] >= cost_usd[s] - slack_usd
    assert objective.measure(cost_usd) >= objective.by_the_mean().measure(cost_usd) - slack_usd


@settings(max_examples=25, deadline=None)
@given(problem=problems(), factor=st.sampled_from([0.5, 2.0]))
def test_demand_is_all_that_changes_with_it(problem, factor):
    """A scenario of another demand is the problem that a plan for that demand would be made for."""
    scenarios = parse_kind("mean").scenarios(replace(problem, demand_quantiles=None))
    highest = max(scenarios, key=lambda scenario: float(scenario.demand.max()))
    other = with_demand(problem, highest.demand)
    assert np.allclose(highest.problem.load, other.load)
    assert np.allclose(highest.problem.unmet_usd, other.unmet_usd)
    doubled = parse_kind("mean").scenarios(with_demand(problem, np.full(len(problem.query_types), factor)))
    assert [s.weight for s in doubled] == [s.weight for s in scenarios]
    assert np.allclose(doubled[-1].problem.load, factor * scenarios[-1].problem.load)
