"""The router's shares, the unmet share, and the balancers."""

from dataclasses import dataclass

import numpy as np
import pytest

from simulator.fleet.balancer import BALANCERS, power_of_two
from simulator.fleet.replicas import RoutingTable
from simulator.replica.outcome import Outcome
from simulator.rng import draw_key, draws
from tests.engine_bench import COLUMNS, batching, column, offer, plan, run, static

SIZE = 4000
ROWS = [(i, 0, 1) for i in range(SIZE)]
TOLERANCE = 5 * 0.5 / np.sqrt(SIZE)  # five standard errors of a share


def test_shares_are_cumulative_and_the_rest_is_rejected():
    table = RoutingTable((0.25, 0.75), (4, 2))
    assert [table.draw(u) for u in (0.0, 0.2499, 0.25, 0.7499, 0.75, 0.9999)] == [4, 4, 2, 2, None, None]
    assert RoutingTable((), ()).draw(0.0) is None


def test_requests_follow_the_shares_of_their_type():
    rows = [(i, 0, 1, i % 2) for i in range(2 * SIZE)]
    target = plan({"a": 1, "b": 1}, {"p": {"a": 0.2, "b": 0.5}, "q": {"b": 1.0}}, {"p": 0.3})
    result = run(rows, [target], static(slots=None), types=("p", "q"))
    table = result.requests
    p = table.query_type == 0
    assert (table.deployment[~p] == 1).all()
    assert np.mean(table.deployment[p] == 0) == pytest.approx(0.2, abs=TOLERANCE)
    assert np.mean(table.deployment[p] == 1) == pytest.approx(0.5, abs=TOLERANCE)
    unmet = table.outcome == Outcome.REJECTED_UNMET
    assert np.mean(unmet[p]) == pytest.approx(0.3, abs=TOLERANCE)
    assert not unmet[~p].any()
    for name in ("deployment", "replica"):
        assert (getattr(table, name)[unmet] == -1).all()
    for name in ("start_tick", "first_token_tick", "finish_tick"):
        assert (getattr(table, name)[unmet] < 0).all()


def test_type_without_routes_is_rejected_as_a_whole():
    result = run([(0, 0, 1, 0), (1, 0, 1, 1)], [plan({"a": 1})], static(), types=("p", "q"))
    assert [Outcome(o) for o in result.requests.outcome] == [Outcome.REJECTED_UNMET, Outcome.SERVED]


def test_rounding_of_the_shares_rejects_nothing():
    target = plan({"a": 1, "b": 1}, {"q": {"a": 0.25, "b": 0.25}})  # a rounding error one can see
    assert run(ROWS, [target], static(slots=None)).count(Outcome.SERVED) == SIZE


def test_routing_draws_do_not_depend_on_the_fleet():
    def routed(replicas, balancer):
        target = plan({"a": replicas, "b": 1}, {"q": {"a": 0.4, "b": 0.4}}, {"q": 0.2})
        return column(run(ROWS[:500], [target], static(), balancer=balancer), "deployment")

    assert routed(1, "random") == routed(3, "power_of_two")


def test_seed_changes_the_routes_and_nothing_else_does():
    target = plan({"a": 2, "b": 1}, {"q": {"a": 0.5, "b": 0.5}})
    first, again, other = (run(ROWS[:500], [target], static(), seed=seed, balancer="random") for seed in (1, 1, 2))
    for name in COLUMNS:
        assert column(first, name) == column(again, name)
    assert column(first, "deployment") != column(other, "deployment")


def test_round_robin_counts_per_deployment():
    target = plan({"a": 2, "b": 3}, {"p": {"a": 1.0}, "q": {"b": 1.0}})
    rows = [(i, 0, 1, (0, 1, 1)[i % 3]) for i in range(12)]
    result = run(rows, [target], static(), types=("p", "q"), balancer="round_robin")
    of_a, of_b = column(result, "replica")[0::3], [r for i, r in enumerate(column(result, "replica")) if i % 3]
    assert of_a == [0, 1, 0, 1]
    assert of_b == [2, 3, 4, 2, 3, 4, 2, 3]


def test_tokens_and_requests_are_different_loads():
    rows = [(0, 0, 100), (1, 0, 10), (2, 0, 10), (3, 0, 10)]
    by_tokens = run(rows, [plan({"a": 2})], static())
    by_requests = run(rows, [plan({"a": 2})], static(), balancer="least_outstanding_requests")
    assert column(by_tokens, "replica") == [0, 1, 1, 1]
    assert column(by_requests, "replica") == [0, 1, 0, 1]


@dataclass
class Fake:
    """A replica as the balancers see it."""

    outstanding_tokens: int

    @property
    def service(self):
        return self


def test_power_of_two_takes_the_less_loaded_of_every_pair_equally_often():
    ready = [Fake(30), Fake(10), Fake(20)]
    uniform = (np.arange(9000) + 0.5) / 9000
    chosen = [power_of_two(ready, 0, u, 1, 1).outstanding_tokens for u in uniform]
    counts = {load: chosen.count(load) / 9000 for load in (10, 20, 30)}
    assert counts == pytest.approx({10: 5 / 9, 20: 3 / 9, 30: 1 / 9}, abs=1e-3)


def test_power_of_two_gives_ties_to_the_lowest_number():
    ready = [Fake(7), Fake(7)]
    assert {id(power_of_two(ready, 0, u, 1, 1)) for u in (0.3, 0.6)} == {id(ready[0])}  # the pairs (0, 1) and (1, 0)


@pytest.mark.parametrize("name", sorted(BALANCERS))
@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64])
def test_balancers_stay_within_the_ready_replicas(name, size):
    ready = [Fake(0) for _ in range(size)]
    for replica in ready:
        replica.held = 0
    last = np.nextafter(1.0, 0.0)
    for uniform in (0.0, last, 1 - 1 / size, np.nextafter(1 / size, 0.0), *draws(draw_key(0, name), 0, 50)):
        assert BALANCERS[name](ready, 12345, float(uniform), 3, 4) in ready


def test_requests_too_large_for_one_deployment_are_served_by_another():
    offers = {"a": offer(batching(kv=5)), "b": offer(batching(kv=50))}
    target = plan({"a": 1, "b": 1}, {"p": {"a": 1.0}, "q": {"b": 1.0}})
    result = run([(0, 20, 1, 0), (0, 20, 1, 1)], [target], offers, types=("p", "q"))
    assert column(result, "outcome") == [Outcome.REJECTED_TOO_LARGE, Outcome.SERVED]
    assert column(result, "deployment") == [0, 1]
