"""The fleet moves from plan to plan, make before break, and is paid for what it rents."""

from dataclasses import replace

import pytest

from simulator.catalog.configuration import DeploymentKey
from simulator.engine import ENGINES
from simulator.planning.plan import Deployment
from simulator.replica.outcome import Outcome
from simulator.ticks import TICKS_PER_S
from tests.engine_bench import Bench, agreed, column, offer, outcomes, plan, rentals, run, static

A, B, C = (plan({tier: 1}) for tier in "abc")
TWO = plan({"a": 2})
STATIC = offer(static())


def start_up(**startup):
    return {tier: offer(static(slots=None), ticks) for tier, ticks in startup.items()}


def test_first_fleet_is_ready_at_time_zero_and_paid_from_before():
    result = run([(0, 0, 5)], [TWO], offer(static(), startup=70), horizon=100)
    assert column(result, "start_tick") == [0]
    assert rentals(result) == [(0, -70, 100), (0, -70, 100)]
    assert [rental.ready_s for rental in result.rentals] == [0, 0]


def test_old_routing_stays_until_the_new_replicas_are_ready():
    rows = [(100, 0, 1), (149, 0, 10), (150, 0, 1)]
    result = run(rows, [A, B], start_up(a=30, b=50), interval=100, horizon=190)
    assert column(result, "deployment") == [0, 0, 1]
    # The old replica drains until 159; the new one is paid while it loads.
    assert rentals(result) == [(0, -30, 159), (1, 100, 190)]
    assert [rental.ready_s * TICKS_PER_S for rental in result.rentals] == [0, 150]


def test_routing_waits_for_the_last_replica_but_those_of_a_routed_deployment_help_at_once():
    target = plan({"a": 2, "b": 1}, {"q": {"b": 1.0}})
    rows = [(90, 0, 80), (111, 0, 80), (149, 0, 1), (150, 0, 1)]
    result = run(rows, [A, target], start_up(a=10, b=50), interval=100)
    assert column(result, "deployment") == [0, 0, 0, 1]
    assert column(result, "replica") == [0, 1, 0, 2]


def test_draining_replica_takes_nothing_new_and_is_paid_until_its_last_request_leaves():
    rows = [(0, 0, 300), (0, 0, 150), (0, 0, 10), (90, 0, 5), (101, 0, 7)]
    result = run(rows, [TWO, A], static(), interval=100, horizon=180, balancer="round_robin")
    assert column(result, "replica") == [0, 1, 0, 1, 0]
    assert column(result, "finish_tick") == [300, 150, 310, 155, 317]
    assert rentals(result) == [(0, 0, 317), (0, 0, 155)]
    assert result.end_s * TICKS_PER_S == 317


@pytest.mark.parametrize(
    ("outputs", "drained"), [((150, 150), 1), ((150, 200), 0), ((200, 150), 1)], ids=["newest", "first", "second"]
)
def test_least_loaded_replica_drains_and_the_newest_of_equals(outputs, drained):
    rows = [(0, 0, outputs[0]), (0, 0, outputs[1]), (101, 0, 300)]
    result = run(rows, [TWO, A], static(slots=None), interval=100)
    assert column(result, "replica") == [0, 1, 1 - drained]
    assert rentals(result)[drained] == (0, 0, outputs[drained])


def test_idle_replica_that_is_surplus_ends_at_once():
    assert rentals(run([], [TWO, A], STATIC, interval=100, horizon=150)) == [(0, 0, 150), (0, 0, 100)]


def test_fleet_that_grows_rents_only_what_is_missing():
    result = run([], [A, plan({"a": 3})], start_up(a=20), interval=100, horizon=200)
    assert rentals(result) == [(0, -20, 200), (0, 100, 200), (0, 100, 200)]


def test_loading_replica_that_is_no_longer_wanted_is_paid_until_then():
    result = run([(210, 0, 1)], [A, B, A], start_up(a=30, b=150), interval=100, horizon=300)
    assert column(result, "deployment") == [0]
    assert rentals(result) == [(0, -30, 300), (1, 100, 200)]


def test_loading_replica_that_was_given_up_never_becomes_ready():
    result = run([(240, 0, 50), (260, 0, 1)], [A, TWO, A], start_up(a=150), interval=100)
    assert column(result, "replica") == [0, 0]


def test_newest_of_the_loading_replicas_are_given_up_first():
    plans = [A, plan({"a": 2}), plan({"a": 4}), plan({"a": 3}), plan({"a": 3})]
    result = run([], plans, start_up(a=500), interval=100, horizon=450)
    assert rentals(result) == [(0, -500, 450), (0, 100, 450), (0, 200, 450), (0, 200, 300)]


def test_plan_during_a_transition_replaces_its_target():
    rows = [(219, 0, 1), (220, 0, 1)]
    result = run(rows, [A, B, C], start_up(a=0, b=150, c=20), interval=100, horizon=290)
    assert [result.requests.deployments[d].tier for d in column(result, "deployment")] == ["a", "c"]
    assert rentals(result) == [(0, 0, 220), (1, 100, 200), (2, 200, 290)]


def test_draining_replica_is_taken_back_before_another_is_rented():
    rows = [(0, 0, 500), (0, 0, 400), (150, 0, 1), (210, 0, 1), (210, 0, 1)]
    result = run(rows, [TWO, A, TWO], start_up(a=50), interval=100, horizon=300, balancer="round_robin")
    # The second drains from 100 to 200 and then takes its turn again.
    assert column(result, "replica") == [0, 1, 0, 1, 0]
    assert rentals(result) == [(0, -50, 500), (0, -50, 400)]


def test_draining_replicas_are_taken_back_as_far_as_they_go_and_the_oldest_first():
    rows = [(0, 0, 500), (0, 0, 360), (0, 0, 350)]
    plans = [plan({"a": 3}), A, TWO, plan({"a": 4})]
    # At 100 replicas 1 and 2 drain, at 200 replica 1 is taken back, at 300 replica 2, and one is missing.
    result = run(rows, plans, start_up(a=50), interval=100, horizon=300)
    assert rentals(result) == [(0, -50, 500), (0, -50, 360), (0, -50, 350)]
    early = run([(0, 0, 500), (0, 0, 260), (0, 0, 250)], plans, start_up(a=50), interval=100, horizon=290)
    assert rentals(early) == [(0, -50, 500), (0, -50, 290), (0, -50, 250)]
    result = run(rows, plans, start_up(a=50), interval=100, horizon=400)
    assert rentals(result) == [(0, -50, 500), (0, -50, 400), (0, -50, 400), (0, 300, 400)]


def test_replica_that_is_taken_back_has_its_old_place_among_the_ready():
    rows = [(0, 0, 500), (0, 0, 300), (0, 0, 400), *[(210, 0, 1)] * 3]
    plans = [plan({"a": 3}), TWO, plan({"a": 3})]
    result = run(rows, plans, static(), interval=100, horizon=250, balancer="round_robin")
    assert column(result, "replica") == [0, 1, 2, 0, 1, 2]


def test_same_plan_again_changes_nothing():
    story = agreed([(0, 0, 5)], [TWO], STATIC, interval=10, horizon=100)
    assert len(story.seen) == 10
    assert len(story.summary.plans) == 1
    assert len(story.summary.rentals) == 2


@pytest.mark.parametrize("name", ENGINES)
def test_plans_are_recorded_with_their_time_and_given_back_as_incumbents(name):
    bench = Bench([(0, 0, 5)], [A, B, B, C], STATIC, interval=100, horizon=350, engine=name)
    result = bench.run()
    assert [(moment * TICKS_PER_S, p) for moment, p in result.plans] == [(0, A), (100, B), (300, C)]
    assert bench.script.incumbents == [None, A, B, B]


def test_fleet_drains_at_the_horizon_and_loading_replicas_end_there():
    result = run([(0, 0, 250)], [A, TWO], start_up(a=300), interval=100, horizon=200, grace=100)
    assert outcomes(result) == [Outcome.SERVED]
    assert rentals(result) == [(0, -300, 250), (0, 100, 200)]


def test_what_is_not_finished_after_the_grace_period_is_in_flight():
    rows = [(0, 0, 349), (0, 0, 350), (0, 0, 400)]
    result = run(rows, [A], static(slots=None, prefill=1), horizon=200, grace=150)
    assert outcomes(result) == [Outcome.SERVED, Outcome.IN_FLIGHT, Outcome.IN_FLIGHT]
    assert rentals(result) == [(0, 0, 350)]
    assert result.end_s * TICKS_PER_S == 350


def test_run_ends_with_the_last_request_but_not_before_the_horizon():
    assert run([(0, 0, 30)], [A], STATIC, horizon=100).end_s * TICKS_PER_S == 100
    assert run([(0, 0, 130)], [A], STATIC, horizon=100).end_s * TICKS_PER_S == 130


def single(tensor_parallel, tpot_target_s):
    """One replica of tier a."""
    configuration = replace(
        A.deployments[0].configuration, tensor_parallel=tensor_parallel, tpot_target_s=tpot_target_s
    )
    return replace(A, deployments=(Deployment(configuration=configuration, replicas=1),))


def test_change_of_the_parallel_degree_is_another_deployment():
    rows = [(120, 0, 1), (130, 0, 1)]
    result = run(rows, [single(1, 0.1), single(2, 0.1)], start_up(a=30), interval=100, horizon=200)
    assert result.requests.deployments == (DeploymentKey("m", "a", 1, 1), DeploymentKey("m", "a", 2, 1))
    assert column(result, "deployment") == [0, 1]
    assert rentals(result) == [(0, -30, 130), (1, 100, 200)]


def test_change_of_the_operating_point_alone_keeps_the_replicas():
    result = run([], [single(1, 0.05), single(1, 0.1)], start_up(a=30), interval=100, horizon=200)
    assert rentals(result) == [(0, -30, 200)]
