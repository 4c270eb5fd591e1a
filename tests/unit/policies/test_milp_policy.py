"""The `milp` policy around its search: what it starts from, what it tells meanwhile, what is left when HiGHS fails."""

import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyomo.environ as pyo
import pytest
from pyomo.contrib.solver.common.factory import SolverFactory
from pyomo.contrib.solver.common.results import SolutionStatus, TerminationCondition

from policies.checking.plan import check
from policies.heuristics.dominance import dominated
from policies.milp import policy as milp
from policies.milp.model import build_model, set_values
from policies.registry import make_policy
from simulator.errors import InfeasibleError, RunError
from simulator.planning.files import read_problem
from simulator.planning.plan import PlanStatus, plan_arrays
from simulator.planning.policy import SearchProgress, StoppingRule
from tests.golden.test_milp_families import tiny


def planned(problem, **stop):
    return make_policy("milp").plan(problem, incumbent=None, stop=StoppingRule(**stop), seed=0)


def without_time(plan):
    return replace(plan, seconds=None)


def spread():
    """The tiny problem with ten types of its kind, so that HiGHS has a tree to search and AGH's plan can be beaten."""
    few, rng = tiny(), np.random.default_rng(3)
    types = tuple(
        replace(few.query_types[n % 2], name=f"type{n}", unmet_cap=1.0, unmet_penalty_usd_per_query=0.002)
        for n in range(10)
    )

    def repeated(values):
        return np.tile(values, (5, 1)) * rng.uniform(0.7, 1.3, size=(10, 3))

    return replace(
        few,
        query_types=types,
        budget_usd=80.0,
        storage_capacity_gb=200.0,
        max_replicas=8,
        delay_s=repeated(few.delay_s),
        error=repeated(few.error),
        load=repeated(few.load) / 3,
        kv=repeated(few.kv) / 3,
        allowed=np.ones((10, 3), dtype=bool),
    )


@pytest.fixture
def highs_of(monkeypatch):
    """The HiGHS objects that the policy makes, in order."""
    made = []

    def factory(name):
        solver = SolverFactory(name)
        set_instance = solver.set_instance

        def kept(model):
            set_instance(model)
            made.append(solver._solver_model)

        solver.set_instance = kept
        return solver

    monkeypatch.setattr(milp, "SolverFactory", factory)
    return made


# -- start ----------------------------------------------------------------------------------------------------------


def test_the_plan_of_agh_is_a_point_of_the_model():
    """Of every row, dominated configurations replaced."""
    problem = spread()
    start = make_policy("agh").plan(problem, incumbent=None, stop=StoppingRule(), seed=0)
    arrays = milp._start_arrays(problem, start)
    assert not arrays.replicas[dominated(problem)].any()
    built = build_model(problem)
    set_values(built, arrays)
    for constraint in built.model.component_data_objects(pyo.Constraint):
        assert constraint.slack() >= -1e-7, constraint.name
    assert pyo.value(built.model.cost) == pytest.approx(start.cost_usd)


def test_highs_starts_from_it(highs_of):
    """Without a single node of the tree HiGHS has a solution at least as good, for it was given one."""
    problem = spread()
    start = make_policy("agh").plan(problem, incumbent=None, stop=StoppingRule(), seed=0)
    seen = []
    progress = milp.Progress(seen.append, time.perf_counter())
    arrays = milp._start_arrays(problem, start)
    built = build_model(problem)
    set_values(built, arrays)
    solved = milp.solve(built.model, StoppingRule(max_nodes=0), 0, progress)
    assert solved.incumbent_objective <= start.cost_usd * (1 + 1e-6)
    assert seen[0].cost_usd == pytest.approx(start.cost_usd, rel=1e-5), (
        "the first one HiGHS has is the one it was given"
    )


def test_a_start_that_the_clock_cut_short_is_none():
    """It depends on the machine, so the tree must not depend on it."""
    start = make_policy("agh").plan(tiny(), incumbent=None, stop=StoppingRule(), seed=0)
    assert milp._start_arrays(tiny(), replace(start, status=PlanStatus.TIME_LIMIT)) is None
    assert milp._start_arrays(tiny(), None) is None


def test_one_thread_and_a_fixed_seed(highs_of):
    planned(tiny(), relative_gap=0.01)
    (highs,) = highs_of
    options = {name: highs.getOptionValue(name)[1] for name in ("threads", "random_seed", "mip_rel_gap", "output_flag")}
    assert options == {"threads": 1, "random_seed": 0, "mip_rel_gap": 0.01, "output_flag": False}


# -- reports --------------------------------------------------------------------------------------------------------


def test_reports_are_monotone_and_end_with_the_plan():
    seen: list[SearchProgress] = []
    plan = planned(spread(), report=seen.append)
    assert len(seen) >= 3
    costs = [p.cost_usd for p in seen if p.cost_usd is not None]
    bounds = [p.bound_usd for p in seen if p.bound_usd is not None]
    assert costs == sorted(costs, reverse=True)
    assert bounds == sorted(bounds)
    assert [p.seconds for p in seen] == sorted(p.seconds for p in seen)
    assert (seen[-1].cost_usd, seen[-1].bound_usd) == (plan.cost_usd, plan.bound_usd)
    assert all(np.isfinite([*costs, *bounds]))
    assert all(a != b for a, b in pairwise(seen))
    assert max(bounds) <= min(costs)


def test_reports_change_nothing():
    problem = spread()
    assert without_time(planned(problem, report=lambda _: None)) == without_time(planned(problem))


def test_nobody_listens_where_nobody_asked(monkeypatch):
    def never(*_):
        raise AssertionError("a callback")

    monkeypatch.setattr(milp, "_listen", never)
    assert planned(tiny()).status is PlanStatus.OPTIMAL


def test_agh_reports_nothing_of_its_own(monkeypatch):
    rules = []
    real = milp._heuristic_plan
    monkeypatch.setattr(
        milp, "_heuristic_plan", lambda problem, stop, seed: rules.append(stop) or real(problem, stop, seed)
    )
    planned(tiny(), report=lambda _: None)
    assert [stop.report for stop in rules] == [None]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("when", [1, 2, 3])
def test_what_a_report_raises_ends_the_search(error, when):
    seen = []

    def report(progress):
        seen.append(progress)
        if len(seen) == when:
            raise error("enough")

    with pytest.raises(error, match="enough"):
        planned(spread(), report=report)
    assert len(seen) == when


def test_reports_can_be_printed_while_highs_searches(capfd):
    """Pyomo's own solve catches whatever is written meanwhile, by anyone."""
    count = []

    def report(progress):
        count.append(progress)
        print("bound", progress.bound_usd, flush=True)

    planned(spread(), report=report)
    out, err = capfd.readouterr()
    assert len(out.splitlines()) == len(count)
    assert err == ""


def test_where_nothing_is_usable_the_plan_is_the_only_report():
    problem = replace(tiny(), query_types=tuple(replace(q, unmet_cap=1.0) for q in tiny().query_types), budget_usd=1.0)
    seen: list[SearchProgress] = []
    plan = planned(problem, report=seen.append)
    assert [(p.cost_usd, p.bound_usd) for p in seen] == [(plan.cost_usd, plan.cost_usd)]
    assert plan.deployments == ()


# -- failures -------------------------------------------------------------------------------------------------------


class Broken:
    """HiGHS that cannot run."""

    def __init__(self, highs, error):
        self._highs, self._error = highs, error

    def __getattr__(self, name):
        return getattr(self._highs, name)

    def run(self):
        raise self._error


@pytest.fixture
def broken_highs(monkeypatch):
    def breaks(error):
        def factory(name):
            solver = SolverFactory(name)
            set_instance = solver.set_instance

            def kept(model):
                set_instance(model)
                solver._solver_model = Broken(solver._solver_model, error)

            solver.set_instance = kept
            return solver

        monkeypatch.setattr(milp, "SolverFactory", factory)

    return breaks


@pytest.mark.parametrize("error", [RuntimeError("HiGHS"), MemoryError()])
def test_when_highs_breaks_the_plan_of_agh_is_left(broken_highs, error):
    broken_highs(error)
    plan = planned(tiny())
    assert (plan.policy, plan.status, plan.bound_usd) == ("milp", PlanStatus.FEASIBLE, None)
    assert check(tiny(), plan).accepted


def test_an_error_status_of_highs_leaves_the_plan_of_agh(monkeypatch):
    monkeypatch.setattr(milp, "CONDITIONS", {})  # every status is an unknown one
    plan = planned(tiny())
    assert (plan.policy, plan.status, plan.bound_usd) == ("milp", PlanStatus.FEASIBLE, None)


def test_when_highs_breaks_and_there_is_no_plan_that_is_told(broken_highs, monkeypatch):
    broken_highs(RuntimeError("HiGHS"))
    monkeypatch.setattr(milp, "_heuristic_plan", lambda *_: None)
    with pytest.raises(RunError, match="found no plan for tiny because HiGHS failed"):
        planned(tiny())


def test_a_routing_program_that_fails_costs_only_the_polish(monkeypatch):
    def fails(*_):
        raise RunError("HiGHS failed on a routing program")

    expected = planned(tiny())
    monkeypatch.setattr(milp, "route", fails)
    plan = planned(tiny())
    assert plan.status is PlanStatus.OPTIMAL
    assert plan.cost_usd == pytest.approx(expected.cost_usd)


def test_a_plan_is_the_proof_that_there_is_one(monkeypatch):
    """Whatever HiGHS says."""
    infeasible = milp.Solved(
        termination_condition=TerminationCondition.provenInfeasible,
        solution_status=SolutionStatus.noSolution,
        incumbent_objective=None,
        objective_bound=1e9,
    )
    monkeypatch.setattr(milp, "solve", lambda *_: infeasible)
    plan = planned(tiny())
    assert (plan.status, plan.bound_usd) == (PlanStatus.FEASIBLE, None)
    assert check(tiny(), plan).accepted


def test_too_little_money_for_any_replica_is_told_with_what_would_do():
    told = r"the budget of 1 USD .* The cheapest fleet found .* spends \d+\.\d\d USD"
    with pytest.raises(InfeasibleError, match=told):
        planned(replace(tiny(), budget_usd=1.0))


def test_nodes_run_out():
    plan = planned(spread(), max_nodes=0)
    assert plan.status in (PlanStatus.FEASIBLE, PlanStatus.OPTIMAL)
    assert plan.bound_usd is None or plan.bound_usd <= plan.cost_usd


@pytest.mark.parametrize("limit_s", [1.0, 3.0])
def test_the_time_limit_is_kept_and_the_reports_end_with_the_plan(data_dir, limit_s):
    problem = read_problem(data_dir / "problems" / "10x10x10-seed2.json.gz")
    seen: list[SearchProgress] = []
    started = time.perf_counter()
    plan = planned(problem, time_limit_s=limit_s, report=seen.append)
    assert time.perf_counter() - started < limit_s + 3.0, "one second, and two for a busy machine"
    assert (seen[-1].cost_usd, seen[-1].bound_usd) == (plan.cost_usd, plan.bound_usd)
    costs = [p.cost_usd for p in seen if p.cost_usd is not None]
    assert costs == sorted(costs, reverse=True)
    assert plan_arrays(problem, plan).replicas.any()
