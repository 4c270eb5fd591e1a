"""Both disciplines, and the choice of a replica, against slow second opinions: equal to the tick, whatever the load."""

import math

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from simulator.fleet.balancer import BALANCERS
from simulator.fleet.reality import OnFailure, Reality
from simulator.replica.outcome import Outcome
from simulator.replica.port import NEVER
from simulator.rng import draw_key, draws
from simulator.ticks import TICKS_PER_S
from tests.engine_bench import Request, batching, column, fits, offer, outcomes, plan, run, serve, static, ticks
from tests.exploring import examples

COEFFICIENTS = st.integers(0, 3)
BATCHING = st.builds(
    batching,
    kv=st.integers(0, 40),
    budget=st.integers(1, 8) | st.integers(1, 64),
    base=st.integers(0, 6),
    prefill=COEFFICIENTS,
    decode=COEFFICIENTS,
    context=COEFFICIENTS,
)
STATIC = st.builds(
    static,
    kv=st.integers(0, 60),
    slots=st.none() | st.integers(1, 4),
    prefill=COEFFICIENTS,
    decode=COEFFICIENTS,
)

SPECS = BATCHING | STATIC
GAPS = st.sampled_from([0, 0, 0, 1, 3, 10, 30, 150])
OUTPUTS = st.sampled_from([0, 1, 2, 3, 5, 9, 17])


@st.composite
def workloads(draw, max_size=25):
    """Bursts and gaps, with prompts and answers of no tokens among them."""
    now, rows = 0, []
    for gap, h, f in draw(st.lists(st.tuples(GAPS, st.integers(0, 14), OUTPUTS), min_size=1, max_size=max_size)):
        now += gap
        rows.append((now, h, f))
    return rows


@st.composite
def crowds(draw):
    """More than a small KV cache can take, so that requests are preempted again and again."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    size = draw(st.integers(10, 60))
    arrivals = np.cumsum(rng.integers(0, 8, size))
    return list(
        zip(arrivals.tolist(), rng.integers(0, 9, size).tolist(), rng.integers(0, 20, size).tolist(), strict=True)
    )


def check(result, members, requests):
    """Columns of the engine beside those of the second opinion."""
    for name, attribute in (
        ("start_tick", "start"),
        ("first_token_tick", "first_token"),
        ("finish_tick", "finish"),
        ("preemptions", "preemptions"),
    ):
        assert getattr(result.requests, name)[members].tolist() == [getattr(r, attribute) for r in requests], name


def check_replica(rows, spec, result, rental):
    """What a replica did with the requests that came to it, beside the second opinion."""
    table = result.requests
    members = [i for i in range(len(rows)) if table.replica[i] == rental.replica and fits(rows[i], spec)]
    requests = [Request(*rows[i]) for i in members]
    cut = any(table.outcome[i] == Outcome.IN_FLIGHT for i in members)
    totals = serve(requests, spec, end=ticks(rental.end_s) if cut else math.inf)
    check(result, members, requests)
    assert rental.preemptions == totals.preemptions
    if spec.discipline.name == "batching":
        assert (rental.steps, rental.kv_peak_tokens) == (totals.steps, totals.kv_peak_tokens)
    event(f"cut: {cut}, preemptions: {min(rental.preemptions, 3)}")


@settings(deadline=None, max_examples=examples(200))
@given(workloads(), SPECS)
def test_one_replica(rows, spec):
    result = run(rows, [plan({"a": 1})], spec)
    expected = [Outcome.SERVED if fits(row, spec) else Outcome.REJECTED_TOO_LARGE for row in rows]
    assert outcomes(result) == expected
    check_replica(rows, spec, result, result.rentals[0])


@settings(deadline=None, max_examples=examples(120))
@given(crowds(), BATCHING, st.integers(27, 70))
def test_one_crowded_replica(rows, spec, kv):
    spec = batching(kv, spec.token_budget, *(getattr(spec.step, name) for name in spec.step.__slots__))
    result = run(rows, [plan({"a": 1})], spec)
    assert result.count(Outcome.SERVED) == len(rows)
    check_replica(rows, spec, result, result.rentals[0])


@settings(deadline=None, max_examples=examples(80))
@given(
    workloads() | crowds(),
    SPECS,
    st.lists(st.integers(1, 3), max_size=4),
    st.sampled_from(sorted(BALANCERS)),
    st.integers(0, 200),
)
def test_replicas_of_a_fleet_that_grows_and_shrinks_and_is_cut_short(rows, spec, counts, balancer, grace):
    plans = [plan({"a": count}) for count in [1, *counts]]
    result = run(rows, plans, spec, interval=40, grace=grace, balancer=balancer)
    for rental in result.rentals:
        check_replica(rows, spec, result, rental)


@settings(deadline=None, max_examples=examples(120))
@given(workloads() | crowds(), SPECS, st.sampled_from([0, 20]), st.integers(0, 300), st.integers(0, 10**6))
def test_one_replica_that_fails_and_is_replaced(rows, spec, startup, extra, seed):
    """Every life of the replica goes on with what the one before left: all tokens that were generated are kept."""
    reality = Reality(failures_per_replica_h=3600 / 200 * TICKS_PER_S, on_failure=OnFailure.REQUEUE)  # each 200 ticks
    horizon = rows[-1][0] + 1 + extra
    result = run(rows, [plan({"a": 1})], offer(spec, startup), reality=reality, horizon=horizon, seed=seed)
    table = result.requests
    members = [i for i, row in enumerate(rows) if fits(row, spec) and table.deployment[i] >= 0]
    requests = [Request(*rows[i]) for i in members]
    for rental in result.rentals:
        ready, end = ticks(rental.ready_s), ticks(rental.end_s)
        if rental is result.rentals[-1] and result.count(Outcome.FAILED) == 0:
            end = math.inf  # it ended because its work was done
        serve([r for r in requests if r.finish == NEVER and max(r.arrival, ready) < end], spec, ready, end)
    check(result, members, requests)
    expected = [Outcome.FAILED if r.finish == NEVER else Outcome.SERVED for r in requests]
    assert table.outcome[members].tolist() == expected
    event(f"failures: {min(len(result.rentals) - 1, 3)}, failed: {result.count(Outcome.FAILED) > 0}")


@pytest.mark.parametrize(
    "balancer", ["least_outstanding_tokens", "least_outstanding_requests", "round_robin", "random"]
)
@settings(deadline=None, max_examples=50)
@given(rows=workloads(), spec=SPECS, replicas=st.integers(1, 4), seed=st.integers(0, 3))
def test_choice_of_a_replica(balancer, rows, spec, replicas, seed):
    result = run(rows, [plan({"a": replicas})], spec, balancer=balancer, seed=seed)
    finish, chosen = column(result, "finish_tick"), column(result, "replica")
    uniform = draws(draw_key(seed, "balancer"), 0, len(rows))
    for number, (arrival, _, _) in enumerate(rows):
        held = [[] for _ in range(replicas)]  # boundaries come after arrivals, so who finishes now is still there
        for other in range(number):
            if fits(rows[other], spec) and finish[other] >= arrival:
                held[chosen[other]].append(sum(rows[other][1:]))
        assert (
            chosen[number]
            == {
                "least_outstanding_tokens": min(range(replicas), key=lambda r: sum(held[r])),
                "least_outstanding_requests": min(range(replicas), key=lambda r: len(held[r])),
                "round_robin": number % replicas,
                "random": int(uniform[number] * replicas),
            }[balancer]
        )
