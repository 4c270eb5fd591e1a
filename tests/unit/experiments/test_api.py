"""`experiments.api`: its examples run, and it says what the command line says."""

import doctest
import json
from dataclasses import asdict

import pytest

import experiments.api as tokenfleet
from simulator.errors import InputError
from simulator.planning.files import plan_to_dict
from tests.verify_samples import small


@pytest.fixture(scope="module")
def scenario(tmp_path_factory):
    return small(tmp_path_factory.mktemp("api"))


@pytest.mark.parametrize("name", [name for name in tokenfleet.__all__ if callable(getattr(tokenfleet, name))])
def test_what_is_offered_is_documented(name):
    assert getattr(tokenfleet, name).__doc__


@pytest.mark.parametrize("name", ["arrivals", "replay", "plan", "verify", "stress"])
def test_each_function_has_an_example_that_runs(name):
    (found,) = (test for test in doctest.DocTestFinder().find(tokenfleet) if test.name.endswith(f".{name}"))
    assert found.examples
    assert doctest.DocTestRunner(verbose=False).run(found).failed == 0


def test_a_replay_is_that_of_the_command_line(scenario, run_cli):
    run = tokenfleet.replay(scenario, "gh", seed=3)
    told = run_cli("replay", "--scenario", scenario.source, "--policy", "gh", "--seed", 3, "--json")
    (summary,) = json.loads(told.stdout)["runs"]
    assert {name: summary[name] for name in run.summary} == json.loads(json.dumps(run.summary))


def test_a_plan_is_that_of_the_command_line(scenario, run_cli):
    planned = tokenfleet.plan(scenario, "exact")
    told = json.loads(run_cli("plan", "--scenario", scenario.source, "--policy", "exact", "--json").stdout)
    assert planned.proof is not None
    assert told.pop("effort") == asdict(planned.proof.effort)
    assert {**told, "seconds": None} == {**plan_to_dict(planned.plan), "seconds": None}
    assert tokenfleet.check(planned.problem, planned.plan).accepted


def test_a_plan_is_replayed_as_it_stands(scenario):
    arriving = tokenfleet.arrivals(scenario, duration_s=120.0)
    plan = tokenfleet.plan(tokenfleet.problem_of(scenario, arriving)).plan
    run = tokenfleet.replay(scenario, plan, arriving)
    assert run.policy == f"plan[{plan.policy}]"
    assert [made for _, made in run.result.plans] == [plan]


def test_a_slower_world_is_slower(scenario):
    arriving = tokenfleet.arrivals(scenario, duration_s=120.0)
    table = tokenfleet.table(
        [tokenfleet.replay(scenario, "gh", arriving, delay_factor=factor) for factor in (1.0, 1.5)]
    )
    assert list(table.index) == ["gh", "gh"]
    assert table["e2e_p50_s"].is_monotonic_increasing


def test_stress_simulates_where_requests_are_given(scenario):
    arriving = tokenfleet.arrivals(scenario, duration_s=120.0)
    analytic = tokenfleet.stress(scenario, "gh", factors=(1.0,))
    assert {row["way"] for row in analytic.rows} == {"rerouted", "fixed"}
    simulated = tokenfleet.stress(scenario, "gh", factors=(1.0,), arriving=arriving)
    assert {row["way"] for row in simulated.rows} == {"rerouted", "fixed", "simulated"}
    assert simulated.plan.deployments == analytic.plan.deployments


def test_a_world_without_queues_is_not_verified():
    with pytest.raises(InputError, match="has no queues to verify"):
        tokenfleet.verify(tokenfleet.load_scenario("paper"))
