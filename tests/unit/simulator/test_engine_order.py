"""Order at equal times: control, user processes, arrivals in the order of the trace, boundaries."""

import pytest

from simulator.engine import Priority
from simulator.fleet.reality import OnFailure
from simulator.fleet.replicas import ReplicaState
from simulator.replica.outcome import Outcome
from simulator.replica.port import NEVER
from tests.engine_bench import agreed, batching, column, fail_at, offer, outcomes, plan, run, static


def test_arrivals_of_one_tick_share_a_prefill_step():
    result = run([(7, 3, 1), (7, 4, 1), (8, 1, 1)], [plan({"a": 1})], batching(prefill=1))
    assert column(result, "first_token_tick") == [24, 24, 35]
    assert result.rentals[0].steps == 2


def test_arrival_at_the_end_of_a_step_joins_the_next_one():
    result = run([(0, 0, 2), (10, 3, 1)], [plan({"a": 1})], batching(prefill=1))
    assert column(result, "start_tick") == [0, 10]
    assert column(result, "finish_tick") == [23, 23]


def test_slot_that_becomes_free_is_taken_at_the_same_tick():
    result = run([(0, 0, 10), (10, 0, 5)], [plan({"a": 1})], static())
    assert column(result, "start_tick") == [0, 10]


def test_arrival_still_sees_the_request_that_finishes_at_its_tick():
    rows = [(0, 0, 10), (5, 0, 4), (10, 0, 1)]
    result = run(rows, [plan({"a": 2})], static(), balancer="least_outstanding_requests")
    assert column(result, "replica") == [0, 1, 1]
    tie = run([(0, 0, 10), (6, 0, 4), (10, 0, 1)], [plan({"a": 2})], static(), balancer="least_outstanding_requests")
    assert column(tie, "replica") == [0, 1, 0]


def test_simultaneous_arrivals_are_routed_in_the_order_of_the_trace():
    result = run([(0, 0, 9)] * 4, [plan({"a": 2})], static(), balancer="round_robin")
    assert column(result, "replica") == [0, 1, 0, 1]
    assert column(result, "start_tick") == [0, 0, 9, 9]


@pytest.mark.parametrize(("arrival", "tier"), [(99, 0), (100, 1), (101, 1)])
def test_plan_of_a_tick_routes_the_arrivals_of_that_tick(arrival, tier):
    result = run([(arrival, 1, 1)], [plan({"a": 1}), plan({"b": 1})], batching(), interval=100, horizon=150)
    assert column(result, "deployment") == [tier]


@pytest.mark.parametrize(("arrival", "replica"), [(119, 0), (120, 1)])
def test_replica_takes_the_arrivals_of_the_tick_at_which_it_is_ready(arrival, replica):
    rows = [(90, 0, 50), (arrival, 0, 1)]
    result = run(rows, [plan({"a": 1}), plan({"a": 2})], offer(static(), startup=20), interval=100)
    assert column(result, "replica") == [0, replica]


def test_replica_that_becomes_ready_at_a_replan_is_ready_in_it():
    """Both are control: they run in the order in which they were scheduled."""
    plans = [plan({"a": 1}), plan({"b": 1}), plan({"a": 1})]
    result = run([(150, 0, 1)], plans, offer(static(), startup=100), interval=100, horizon=350)
    # At 200 `b` is ready and `a` has drained, so that `a` has to be rented again.
    assert [rental.deployment for rental in result.rentals] == [0, 1, 0]


@pytest.mark.parametrize(("service", "outcome"), [(29, Outcome.SERVED), (30, Outcome.FAILED), (31, Outcome.FAILED)])
def test_failure_comes_before_the_boundary_of_its_tick(monkeypatch, service, outcome):
    reality = fail_at(monkeypatch, {0: 30}, OnFailure.FAIL)
    result = run([(0, 0, service)], [plan({"a": 1})], static(), reality=reality, horizon=100)
    assert outcomes(result) == [outcome]


def test_arrival_at_the_tick_of_a_failure_is_not_lost_with_the_replica(monkeypatch):
    reality = fail_at(monkeypatch, {0: 30}, OnFailure.FAIL)
    result = run(
        [(29, 0, 5), (29, 0, 9), (30, 0, 5)], [plan({"a": 2})], offer(static(), 500), reality=reality, horizon=99
    )
    assert outcomes(result) == [Outcome.FAILED, Outcome.SERVED, Outcome.SERVED]
    assert column(result, "replica") == [0, 1, 1]


def test_step_that_ends_with_the_grace_period_gives_nothing():
    result = run([(0, 1, 1), (0, 1, 2)], [plan({"a": 1})], batching(), horizon=12, grace=8)
    assert outcomes(result) == [Outcome.SERVED, Outcome.IN_FLIGHT]
    assert column(result, "finish_tick") == [10, NEVER]


def test_user_processes_run_after_control_and_before_arrivals():
    """At 100 a second replica is rented and ready, one request finishes, and another arrives."""

    def user(engine, notes):
        yield engine.env.timeout(100)
        notes.append([(replica.state, replica.service.held) for replica in engine.fleet.replicas])

    rows = [(90, 1, 1), (100, 1, 1)]
    story = agreed(rows, [plan({"a": 1}), plan({"a": 2})], batching(), interval=100, horizon=150, processes=[user])
    assert story.notes == [[(ReplicaState.READY, 1), (ReplicaState.READY, 0)]]
    assert list(Priority) == sorted(Priority)
