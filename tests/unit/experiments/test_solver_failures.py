"""A solver that fails ends no replay."""

import pytest

import experiments.api as tokenfleet
from policies.heuristics.greedy import Gh
from simulator.errors import InfeasibleError, SolverError


class Failing:
    """`gh`, whose solver fails at some of the calls."""

    name = "failing"

    def __init__(self, error, *calls):
        self.error, self.calls, self.made = error, calls, 0

    def plan(self, problem, *, incumbent, stop, seed):
        self.made += 1
        if self.made in self.calls:
            raise self.error("HiGHS failed on something (Solve error)")
        return Gh().plan(problem, incumbent=incumbent, stop=stop, seed=seed)


def replayed(policy):
    scenario = tokenfleet.load_scenario("azure-2023")
    return tokenfleet.replay(scenario, policy, tokenfleet.arrivals(scenario, duration_s=240), interval_s=60.0).summary


@pytest.mark.parametrize(("calls", "failed"), [((), 0), ((1,), 1), ((2, 3), 2)])
def test_a_solver_that_fails_leaves_the_fleet_in_force_and_at_first_that_of_gh(calls, failed):
    summary = replayed(Failing(SolverError, *calls))
    assert summary["infeasible_replans"] == failed
    assert summary["arrived"] == summary["served"] + summary["rejected"] + summary["failed"] + summary["in_flight"]


def test_a_problem_without_a_plan_at_the_start_is_an_error():
    with pytest.raises(InfeasibleError):
        replayed(Failing(InfeasibleError, 1))
