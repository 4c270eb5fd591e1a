"""Digests of small fixed runs: any change of what happens shows here, and has to be meant.

The workload comes from a formula, so that only the engine and its numbered draws are pinned; both engines give the run.
"""

import hashlib

import numpy as np
import pytest

from simulator.replica.outcome import Outcome
from tests.engine_bench import COLUMNS, batching, offer, plan, rentals, run, static

SIZE = 400
OFFERS = {
    "batching": offer(batching(kv=120, budget=48, base=20, prefill=1, decode=2, context=1), startup=2000),
    "static": offer(static(kv=115, slots=2, prefill=6, decode=40), startup=2000),
}
DIGESTS = {
    "batching": "a36c4f2e9ef18238",
    "static": "4975d3390cd68e3f",
}
DIGESTS_WITHOUT_DRAWS = {  # recorded before draws were numbered: nothing but the draws has changed since
    "batching": "c04ddcc799160a4c",
    "static": "cc15f47ca722725a",
}


def rows():
    """A load that the fleet can carry only in part, from a multiplicative generator."""
    state, now, table = 20260729, 0, []
    for _ in range(SIZE):
        draws = []
        for size in (600, 90, 40):
            state = state * 48271 % (2**31 - 1)
            draws.append(state % size)
        gap, h, f = draws
        now += gap
        table.append((now, h, f, state // 7 % 2))
    return table


def plans_without_draws():
    """Each type has one deployment, whatever is drawn: grow, give the second type another one, shrink again."""
    everything = {"p": {"a": 1.0}, "q": {"a": 1.0}}
    apart = {"p": {"a": 1.0}, "q": {"b": 1.0}}
    return [
        plan({"a": 2}, everything),
        plan({"a": 3}, everything),
        plan({"a": 2, "b": 2}, apart),
        plan({"a": 1}, everything),
    ]


def plans():
    """Grow, move half of the traffic to another deployment, shrink again."""
    everything = {"p": {"a": 0.75}, "q": {"a": 1.0}}
    unmet = {"p": 0.25}
    half = {"p": {"a": 0.25, "b": 0.5}, "q": {"a": 0.5, "b": 0.5}}
    return [
        plan({"a": 2}, everything, unmet),
        plan({"a": 3}, everything, unmet),
        plan({"a": 2, "b": 2}, half, unmet),
        plan({"a": 1}, everything, unmet),
    ]


def digest(result):
    """Columns as little-endian int64, one after the other, then the paid ticks of each replica."""
    sha = hashlib.sha256()
    for name in COLUMNS:
        sha.update(getattr(result.requests, name).astype("<i8").tobytes())
    sha.update(np.array(rentals(result), dtype="<i8").tobytes())
    return sha.hexdigest()[:16]


def run_of(discipline, plan_list):
    offers = dict.fromkeys("ab", OFFERS[discipline])
    return run(rows(), plan_list, offers, types=("p", "q"), interval=30_000, grace=1500, seed=7)


@pytest.mark.parametrize("discipline", sorted(DIGESTS))
def test_run_is_the_one_that_was_recorded(discipline):
    result = run_of(discipline, plans())
    # The digest is worth something only if much happens in the run, and nothing is lost in it.
    assert sum(result.count(outcome) for outcome in Outcome) == SIZE
    assert min(result.count(outcome) for outcome in (Outcome.SERVED, Outcome.REJECTED_UNMET, Outcome.IN_FLIGHT)) > 10
    assert result.count(Outcome.REJECTED_TOO_LARGE) > 0
    assert len(result.rentals) == 5
    if discipline == "batching":
        assert sum(rental.preemptions for rental in result.rentals) > 10
    assert digest(result) == DIGESTS[discipline]


@pytest.mark.parametrize("discipline", sorted(DIGESTS_WITHOUT_DRAWS))
def test_run_without_draws_is_the_one_that_was_recorded(discipline):
    result = run_of(discipline, plans_without_draws())
    assert result.count(Outcome.REJECTED_UNMET) == 0
    assert min(result.count(outcome) for outcome in (Outcome.SERVED, Outcome.IN_FLIGHT)) > 10
    assert result.count(Outcome.REJECTED_TOO_LARGE) > 0
    assert (sum(rental.preemptions for rental in result.rentals) > 10) == (discipline == "batching")
    assert digest(result) == DIGESTS_WITHOUT_DRAWS[discipline]
