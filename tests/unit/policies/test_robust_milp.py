"""The search for a robust fleet beside the optimum of the whole robust program, which shares no code with it."""

import time
from dataclasses import replace

import numpy as np
import pytest

from policies.checking.random_problem import random_problem, small_problem
from policies.milp import robust as milp_robust
from policies.milp.robust import build_robust_model, solved
from policies.registry import make_policy
from policies.robust.search import FleetSearch
from simulator.planning.plan import plan_arrays
from simulator.planning.policy import StoppingRule
from simulator.planning.problem import MovingTerms
from tests.unit.policies.test_robust import KINDS, objective_of, planned, unmet_usd, value_usd

PROBLEMS = {
    **{f"small-{number}": lambda number=number: small_problem(0, number) for number in (2, 3, 4, 9)},
    "random": lambda: random_problem(types=4, models=3, tiers=3, seed=2),
    "tight": lambda: replace(random_problem(types=4, models=3, tiers=3, seed=0), budget_usd=40.0),
}
GAP = 1e-5  # relative: what HiGHS's tolerances leave


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("kind", [*KINDS, "gamma=1.5,1.4", "cvar=0.5"])
def test_the_search_finds_the_optimum_of_the_program(kind, name):
    """On problems of this size. Both ways: neither is below the other, so their fleets cost what both say."""
    problem = PROBLEMS[name]()
    nominal = planned("agh+", problem)
    plan = planned(f"robust[{kind}:agh+]", problem)
    objective = objective_of(kind, problem, unmet_usd(problem, nominal))
    found = solved(objective, StoppingRule(), 0)
    searched_usd = value_usd(objective, plan_arrays(problem, plan).replicas)
    assert found.bound_usd is not None
    assert searched_usd == pytest.approx(found.bound_usd, rel=GAP)
    assert value_usd(objective, found.replicas) == pytest.approx(found.value_usd, rel=GAP)


def test_any_fleet_costs_what_the_program_says(monkeypatch):
    """Also one that is not the best, where more of the rows matter."""
    problem = random_problem(types=4, models=3, tiers=3, seed=2)
    replicas = plan_arrays(problem, planned("gh", problem)).replicas
    for kind in (*KINDS, "gamma=1.5,1.4"):
        objective = objective_of(kind, problem)
        model, _ = build_robust_model(objective)
        for a in model.A:
            model.r[a].setlb(int(replicas[a]))
            model.r[a].setub(int(replicas[a]))
        assert set(np.flatnonzero(replicas)) <= set(model.A)
        monkeypatch.setattr(milp_robust, "build_robust_model", lambda _, model=model: (model, problem))
        assert solved(objective, StoppingRule(), 0).value_usd == pytest.approx(value_usd(objective, replicas), rel=GAP)


def test_milp_inside_returns_the_optimum_where_the_search_does_not(monkeypatch):
    problem = random_problem(types=4, models=3, tiers=3, seed=2)
    best = planned("robust[mean:milp]", problem)
    monkeypatch.setattr(FleetSearch, "improve", lambda *_, **__: None)
    monkeypatch.setattr(FleetSearch, "climb", lambda *_: None)
    assert planned("robust[mean:agh+]", problem).deployments != best.deployments
    assert planned("robust[mean:milp]", problem).deployments == best.deployments
    objective = objective_of("mean", problem, 0.0)
    optimum = solved(objective, StoppingRule(), 0)
    assert value_usd(objective, plan_arrays(problem, best).replicas) == pytest.approx(optimum.bound_usd, rel=GAP)


def test_a_program_that_is_too_large_is_not_begun(monkeypatch):
    def never(*_):
        raise AssertionError("it was stated")

    monkeypatch.setattr(milp_robust, "build_robust_model", never)
    problem = random_problem(seed=1)
    assert milp_robust.optimum(objective_of("mean", problem), StoppingRule(), 0) is None
    small = objective_of("mean", small_problem(0, 0))
    assert milp_robust.optimum(small, StoppingRule(time_limit_s=0.01), 0) is None
    with pytest.raises(AssertionError, match="it was stated"):
        milp_robust.optimum(small, StoppingRule(), 0)


def test_the_program_is_not_solved_where_moving_has_a_price(monkeypatch):
    """It does not know of it, and would leave a fleet that is worth keeping."""
    asked = []
    monkeypatch.setattr(
        milp_robust,
        "solved",
        lambda *_: asked.append(1) or milp_robust.RobustOptimum(replicas=None, value_usd=None, bound_usd=None),
    )
    problem = small_problem(0, 0)
    first = planned("robust[box=1.3:milp]", problem)
    assert asked == [1]
    terms = MovingTerms(provisioning_s=600.0, load_gb_per_s=0.5, drain_s=120.0)
    planned("robust[box=1.3:milp]", replace(problem, moving=terms), incumbent=first)
    assert asked == [1]


def test_a_value_that_the_solution_does_not_have_is_not_believed(monkeypatch):
    """HiGHS 1.16 has said so: the bound is none then."""
    real = milp_robust.solve
    monkeypatch.setattr(
        milp_robust,
        "solve",
        lambda *given: (lambda found: replace(found, incumbent_objective=0.99 * found.incumbent_objective))(
            real(*given)
        ),
    )
    assert solved(objective_of("box=1.3", small_problem(0, 0)), StoppingRule(), 0).bound_usd is None


@pytest.mark.parametrize("limit_s", [0.3, 2.0])
def test_the_time_limit_is_kept(limit_s):
    problem = random_problem(types=10, models=6, tiers=6, seed=1)
    make_policy("robust[mean:milp]").plan(small_problem(0, 0), incumbent=None, stop=StoppingRule(), seed=0)
    started = time.perf_counter()
    planned("robust[mean:milp]", problem, time_limit_s=limit_s)
    assert time.perf_counter() - started < limit_s + 3.0, "slack for a busy machine"
