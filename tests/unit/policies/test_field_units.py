"""Problems of unusual size that once failed (`tests/data/field`; invented values), and solvers that fail."""

import json
from dataclasses import replace
from pathlib import Path

import highspy
import numpy as np
import pytest
from pyomo.contrib.solver.common.results import SolutionStatus, TerminationCondition

import policies.heuristics.routing as routing
from policies.checking.plan import check
from policies.checking.random_problem import random_problem, with_demand, with_types
from policies.milp.policy import Solved, _believed
from policies.registry import make_policy
from simulator.errors import SolverError
from simulator.planning.files import read_plan, read_problem
from simulator.planning.plan import PlanStatus
from simulator.planning.policy import StoppingRule

FIELD = Path(__file__).parents[2] / "data" / "field"
STOP = StoppingRule(effort=300, max_nodes=500)


def planned(policy, problem):
    return make_policy(policy).plan(problem, incumbent=None, stop=STOP, seed=0)


@pytest.mark.parametrize(
    ("name", "optimum_usd", "exact", "agh_usd"),
    [
        ("milp_small_money_1e-9", 3.7420769870e-08, ("milp", "exact", "agh+"), 3.7420769871e-08),
        ("agh_year_plan_crash", 668217.393615, ("milp", "exact"), 1230116.49),
    ],
)
def test_money_of_any_size(name, optimum_usd, exact, agh_usd):
    problem = read_problem(FIELD / f"{name}.json")
    for policy in exact:
        plan = make_policy(policy).plan(problem, incumbent=None, stop=StoppingRule(), seed=0)
        assert plan.cost_usd == pytest.approx(optimum_usd, rel=1e-6, abs=0)
        assert plan.bound_usd == pytest.approx(optimum_usd, rel=1e-5, abs=0)
        assert plan.bound_usd <= plan.cost_usd
    assert planned("agh", problem).cost_usd <= agh_usd


@pytest.mark.parametrize("name", ["checker_small_error_slo", "tol_err1e-5"])
def test_a_tolerance_is_relative_to_its_limit(name):
    report = check(read_problem(FIELD / f"{name}.json"), read_plan(FIELD / f"{name}.plan.json"))
    assert {violation.constraint for violation in report.violations} == {"mean error"}


def test_a_plan_one_replica_over_is_refused_however_many_are_allowed():
    problem = replace(random_problem(types=2, models=2, tiers=2, seed=1), max_replicas=10**7)
    plan = planned("gh", problem)
    many = replace(plan, deployments=tuple(replace(d, replicas=10**7 + 1) for d in plan.deployments[:1]))
    assert "replicas" in {v.constraint for v in check(problem, replace(many, routing=())).violations}


@pytest.mark.parametrize("policy", ["gh", "agh", "agh+", "milp", "exact", "lpr", "dvr", "hf"])
def test_rows_without_coefficients_prove_nothing_or_infeasibility(policy, run_cli):
    run = run_cli("plan", "--problem", FIELD / "milp_trivial.json", "--policy", policy)
    assert (run.code, run.stdout) == (2, "")
    assert "problem p" in run.stderr


def free_of_charge(problem):
    return replace(
        with_types(problem, unmet_penalty_usd_per_query=0.0, delay_penalty_usd_per_query_s=0.0),
        tiers=tuple(replace(tier, price_usd_per_gpu_h=0.0) for tier in problem.tiers),
        storage_price_usd_per_gb_h=0.0,
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("policy", ["gh", "agh", "agh+", "milp", "exact", "lpr", "dvr", "hf", "headroom[1.3:agh]"])
def test_zeros_divide_nothing(policy):
    """No demand, no capacity, no money, no storage, no price."""
    problem = random_problem(types=3, models=3, tiers=2, seed=1)
    cap = np.where(np.arange(len(problem.cap)) % 3, problem.cap, 0.0)
    nothing = with_demand(problem, np.zeros(3))
    for variant in (
        with_demand(problem, np.array([0.0, 1.0, 1.0])),
        nothing,
        replace(nothing, cap=cap),
        replace(problem, cap=cap),
        free_of_charge(problem),
        replace(problem, budget_usd=0.0),
        replace(problem, storage_capacity_gb=0.0),
        replace(with_types(problem, error_slo=0.0), error=np.zeros_like(problem.error)),
    ):
        plan = planned(policy, variant)
        assert check(variant, plan).accepted
        assert plan.gap is None or plan.gap < 1e-5


class Failing(highspy.Highs):
    """HiGHS that never answers."""

    def getModelStatus(self):
        return highspy.HighsModelStatus.kSolveError


@pytest.fixture
def no_routing(monkeypatch):
    """Every routing program fails."""
    made = []

    def solver(attempt):
        made.append(attempt)
        failing = Failing()
        failing.setOptionValue("output_flag", False)
        routing._of_thread.solvers = {attempt: failing}
        return failing

    monkeypatch.setattr(routing, "_solver", solver)
    yield made
    routing._of_thread.solvers = {}


def test_a_routing_program_that_fails_is_tried_in_another_way(no_routing):
    problem = random_problem(types=2, models=2, tiers=2, seed=1)
    with pytest.raises(SolverError, match="HiGHS failed on a routing program"):
        routing.route(problem, np.ones(len(problem.configurations), dtype=np.int64))
    assert no_routing == [0, 1]


def test_where_no_routing_program_is_solved_agh_keeps_the_greedy_routing(no_routing):
    problem = random_problem(types=3, models=3, tiers=2, seed=1)
    plan = planned("agh", problem)
    assert no_routing
    assert check(problem, plan).accepted
    assert plan.cost_usd <= planned("gh", problem).cost_usd * (1 + 1e-9)


def test_a_bound_that_a_plan_contradicts_is_not_believed():
    def result(bound):
        return Solved(
            termination_condition=TerminationCondition.convergenceCriteriaSatisfied,
            solution_status=SolutionStatus.optimal,
            incumbent_objective=10.0,
            objective_bound=bound,
        )

    assert _believed(result(9.0), 20.0, 2.0) == 18.0
    assert _believed(result(10.0 * (1 + 1e-8)), 20.0, 2.0) == 20.0, "within the tolerance"
    assert _believed(result(10.1), 20.0, 2.0) is None
    assert _believed(result(np.inf), 20.0, 2.0) is None


def test_an_optimum_without_a_bound_is_none(monkeypatch):
    import policies.milp.policy as milp

    monkeypatch.setattr(milp, "_believed", lambda *_: None)
    plan = planned("milp", random_problem(types=2, models=2, tiers=2, seed=1))
    assert (plan.status, plan.bound_usd) == (PlanStatus.FEASIBLE, None)
    assert json.loads(json.dumps(plan.status)) == "feasible"
