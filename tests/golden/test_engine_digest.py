"""Digests of small fixed runs: any change of what happens shows here, and has to be meant.

The workload comes from a formula, so that only the engine (and, for the routes, `Generator.random`) is pinned.
"""

import hashlib

import numpy as np
import pytest

from simulator.outcome import Outcome
from tests.engine_bench import COLUMNS, batching, offer, plan, rentals, run, static

SIZE = 400
OFFERS = {
    "batching": offer(batching(kv=120, budget=48, base=20, prefill=1, decode=2, context=1), startup=2000),
    "static": offer(static(kv=115, slots=2, prefill=6, decode=40), startup=2000),
}
DIGESTS = {
    "batching": "4d261b17c8250838",
    "static": "09f0782e2fd31a81",
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


@pytest.mark.parametrize("discipline", sorted(DIGESTS))
def test_run_is_the_one_that_was_recorded(discipline):
    result = run(
        rows(), plans(), dict.fromkeys("ab", OFFERS[discipline]), types=("p", "q"), interval=30_000, grace=1500, seed=7
    )
    # The digest is worth something only if much happens in the run, and nothing is lost in it.
    assert sum(result.count(outcome) for outcome in Outcome) == SIZE
    assert min(result.count(outcome) for outcome in (Outcome.SERVED, Outcome.REJECTED_UNMET, Outcome.IN_FLIGHT)) > 10
    assert result.count(Outcome.REJECTED_TOO_LARGE) > 0
    assert len(result.rentals) == 5
    if discipline == "batching":
        assert sum(rental.preemptions for rental in result.rentals) > 10
    assert digest(result) == DIGESTS[discipline]
