"""Replicas fail: what becomes of their requests, what replaces them, who waits meanwhile."""

import numpy as np
import pytest

from simulator.fleet.reality import OnFailure, Reality
from simulator.replica.outcome import Outcome
from simulator.replica.port import NEVER
from simulator.ticks import TICKS_PER_S
from tests.engine_bench import batching, column, fail_at, offer, outcomes, plan, rentals, run, static

A, B = (plan({tier: 1}) for tier in "ab")
TWO = plan({"a": 2})


def test_requests_of_a_lost_replica_fail(monkeypatch):
    reality = fail_at(monkeypatch, {0: 30}, OnFailure.FAIL)
    rows = [(0, 0, 10), (0, 0, 50), (0, 0, 50), (25, 0, 5)]
    result = run(rows, [A], static(slots=2), reality=reality, horizon=100)
    assert outcomes(result) == [Outcome.SERVED] + [Outcome.FAILED] * 3
    assert column(result, "start_tick") == [0, 0, 10, NEVER]
    assert column(result, "first_token_tick") == [1, 1, 11, NEVER]
    assert column(result, "finish_tick") == [10, NEVER, NEVER, NEVER]


def test_lost_replica_is_replaced_after_a_start_up_and_paid_until_it_failed(monkeypatch):
    reality = fail_at(monkeypatch, {0: 30, 1: 40})
    result = run([], [A], offer(static(), startup=20), reality=reality, horizon=200)
    assert rentals(result) == [(0, -20, 30), (0, 30, 90), (0, 90, 200)]
    assert [rental.ready_s * TICKS_PER_S for rental in result.rentals] == [0, 50, 110]


def test_requests_are_routed_again_and_wait_for_the_replacement(monkeypatch):
    reality = fail_at(monkeypatch, {0: 30})
    rows = [(0, 0, 40), (30, 0, 5), (40, 0, 5), (50, 0, 5)]
    result = run(rows, [A], offer(static(), startup=20), reality=reality)
    assert outcomes(result) == [Outcome.SERVED] * 4
    assert column(result, "replica") == [1, 1, 1, 1]
    assert column(result, "start_tick") == [0, 90, 95, 100]  # the first starts over at 50
    assert column(result, "first_token_tick") == [1, 91, 96, 101]
    assert column(result, "finish_tick") == [90, 95, 100, 105]


def test_requests_go_to_a_replica_that_is_left(monkeypatch):
    reality = fail_at(monkeypatch, {0: 30})
    result = run([(0, 0, 40), (1, 0, 99)], [TWO], static(slots=None), reality=reality, horizon=50)
    assert column(result, "replica") == [1, 1]
    assert column(result, "finish_tick") == [70, 100]


def test_requests_are_routed_again_in_order_of_admission(monkeypatch):
    reality = fail_at(monkeypatch, {0: 30})
    rows = [(0, 0, 60), (0, 0, 10), (0, 0, 40), (0, 0, 100)]
    result = run(rows, [TWO], offer(static(slots=2), 500), reality=reality, horizon=99, balancer="round_robin")
    # At 30 the other replica has one slot: the first request takes it, the third follows at 90.
    assert column(result, "finish_tick") == [90, 10, 130, 100]


def test_tokens_that_were_generated_are_kept(monkeypatch):
    reality = fail_at(monkeypatch, {0: 25})
    result = run([(0, 4, 5)], [A], offer(batching(prefill=1), startup=20), reality=reality, horizon=100)
    # Tokens at 14 and 24; lost at 25, ready at 45; prompt and both tokens anew by 61, then two steps.
    assert column(result, "first_token_tick") == [14]
    assert column(result, "finish_tick") == [45 + 16 + 10 + 10]
    assert column(result, "preemptions") == [0]


def test_requests_that_wait_follow_the_new_routing(monkeypatch):
    reality = fail_at(monkeypatch, {0: 30})
    offers = {"a": offer(static(), startup=500), "b": offer(static(), startup=40)}
    result = run([(35, 0, 5)], [A, B], offers, interval=50, horizon=150, reality=reality)
    # At 50 the replacement is given up; `b` is ready at 90.
    assert column(result, "deployment") == [1]
    assert column(result, "start_tick") == [90]
    assert rentals(result) == [(0, -500, 30), (0, 30, 50), (1, 50, 150)]


def test_requests_that_wait_are_routed_at_once_if_the_new_plan_needs_nothing_new(monkeypatch):
    reality = fail_at(monkeypatch, {0: 30})
    result = run(
        [(35, 0, 5)], [plan({"a": 1, "b": 1}), B], offer(static(), 500), interval=50, reality=reality, horizon=90
    )
    assert column(result, "start_tick") == [50]


def test_requests_that_still_wait_at_the_horizon_fail(monkeypatch):
    reality = fail_at(monkeypatch, {0: 30})
    result = run([(0, 0, 99), (35, 0, 5)], [A], offer(static(), startup=500), reality=reality, horizon=60)
    assert outcomes(result) == [Outcome.FAILED, Outcome.FAILED]
    assert result.end_s * TICKS_PER_S == 60
    assert rentals(result) == [(0, -500, 30), (0, 30, 60)]


@pytest.mark.parametrize("on_failure", OnFailure)
def test_draining_replica_that_fails_is_not_replaced(monkeypatch, on_failure):
    reality = fail_at(monkeypatch, {0: 150}, on_failure)
    rows = [(0, 0, 200), (90, 0, 300)]
    result = run(rows, [TWO, A], static(), interval=100, horizon=170, reality=reality)
    failed = on_failure is OnFailure.FAIL
    assert outcomes(result) == [Outcome.FAILED if failed else Outcome.SERVED, Outcome.SERVED]
    assert column(result, "finish_tick") == [NEVER if failed else 590, 390]
    assert rentals(result) == [(0, 0, 150), (0, 0, 390 if failed else 590)]


def test_replica_that_fails_after_the_horizon_leaves_nobody_to_serve_its_requests(monkeypatch):
    reality = fail_at(monkeypatch, {0: 60})
    result = run([(0, 0, 99)], [A], static(), reality=reality, horizon=50)
    assert outcomes(result) == [Outcome.FAILED]
    assert rentals(result) == [(0, 0, 60)]
    assert result.end_s * TICKS_PER_S == 60


def test_replica_that_is_gone_does_not_fail(monkeypatch):
    reality = fail_at(monkeypatch, {0: 150})
    result = run([(120, 0, 100)], [A, B], static(), interval=100, horizon=200, reality=reality)
    assert outcomes(result) == [Outcome.SERVED]
    assert rentals(result) == [(0, 0, 100), (1, 100, 220)]


def test_failure_during_a_transition_delays_it_until_the_replacement_is_there(monkeypatch):
    reality = fail_at(monkeypatch, {0: 120})
    offers = {"a": offer(static(), startup=60), "b": offer(static(), startup=50)}
    result = run([(110, 0, 1), (160, 0, 1)], [A, B], offers, interval=100, horizon=250, reality=reality)
    # The replacement of 120 loads until 180 although the new plan does not want it.
    assert column(result, "start_tick") == [110, 180]
    assert column(result, "deployment") == [0, 1]


def test_times_between_failures_have_the_stated_mean():
    reality = Reality(failures_per_replica_h=3600 / 10)  # every ten seconds
    result = run(
        [], [plan({"a": 5})], static(), horizon=2000 * TICKS_PER_S, reality=reality, interval=10**5 * TICKS_PER_S
    )
    lives = np.array([rental.end_s - rental.ready_s for rental in result.rentals if rental.end_s < result.end_s])
    # About 1000 of them; the standard error of their mean is 3 %, that of the share is 1.5 %.
    assert len(lives) == pytest.approx(1000, rel=0.13)
    assert lives.mean() == pytest.approx(10, rel=0.13)
    assert (lives > 10).mean() == pytest.approx(np.exp(-1), abs=0.06)


def test_no_failures_by_default():
    result = run([], [TWO], static(), horizon=10**6 * TICKS_PER_S, interval=10**7 * TICKS_PER_S)
    assert len(result.rentals) == 2


def test_replica_of_a_request_belongs_to_its_deployment(monkeypatch):
    reality = fail_at(monkeypatch, {0: 130, 1: 15})
    result = run([(50, 0, 500)], [A, B], offer(static(), startup=10), interval=100, horizon=134, reality=reality)
    # `b` is lost at 125, the draining `a` at 130; the request waits for the new `b`, which would be ready at 135.
    assert (column(result, "deployment"), column(result, "replica")) == ([1], [-1])
