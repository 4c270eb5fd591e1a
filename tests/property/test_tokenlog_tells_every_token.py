"""The time of each token of each answer can be had from the log, and it is the one of the results."""

from bisect import bisect_right
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from simulator.engine import ENGINES
from simulator.fleet.reality import OnFailure, Reality
from simulator.replica.outcome import Outcome
from simulator.replica.port import NEVER
from simulator.replica.tokenlog import LifeEvent
from simulator.ticks import TICKS_PER_S
from tests.engine_bench import LONG, Bench, batching, offer, plan, single_steps


def token_ticks(log):
    """When each request got its tokens, as one reads the log: at the end of its prefill, then of each step up to
    that at which it was preempted, evicted, finished, or cut by the end of the run."""
    ends = defaultdict(list)
    for replica, _, start, ticks, _, _ in single_steps(log).T.tolist():
        ends[replica].append(start + ticks)
    tokens, decoding = defaultdict(list), {}
    for request, kind, tick, replica, step, _ in log.events.tolist():
        if kind == LifeEvent.DECODING:
            assert ends[replica][step - 1] == tick
            tokens[request].append(tick)
            decoding[request] = replica
        elif request in decoding and kind in (LifeEvent.PREEMPTED, LifeEvent.EVICTED, LifeEvent.FINISHED):
            replica = decoding.pop(request)
            first = bisect_right(ends[replica], tokens[request][-1])
            tokens[request] += ends[replica][first:step]
    for request, replica in decoding.items():
        tokens[request] += [end for end in ends[replica] if end > tokens[request][-1]]
    return tokens


@pytest.mark.parametrize("engine", ENGINES)
@settings(deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 10**6),
    size=st.integers(1, 40),
    kv=st.integers(30, 120),
    budget=st.integers(1, 40),
    coefficients=st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)),
    replicas=st.integers(1, 3),
    per_ticks=st.sampled_from([None, 100]),
    grace=st.sampled_from([0, 100, LONG]),
)
def test_tokens_of_the_log_are_those_of_the_results(
    engine, seed, size, kv, budget, coefficients, replicas, per_ticks, grace
):
    rng = np.random.default_rng(seed)
    arrivals, outputs = np.cumsum(rng.integers(0, 12, size)).tolist(), rng.integers(0, 20, size).tolist()
    rows = list(zip(arrivals, rng.integers(0, 12, size).tolist(), outputs, strict=True))
    rate = 3600 * TICKS_PER_S / per_ticks if per_ticks else 0.0
    reality = Reality(failures_per_replica_h=rate, on_failure=OnFailure.REQUEUE)
    bench = Bench(
        rows,
        [plan({"a": replicas})],
        offer(batching(kv, budget, 2, *coefficients), 20),
        reality=reality,
        grace=grace,
        engine=engine,
        token_log=True,
    )
    result = bench.run()
    table, tokens = result.requests, token_ticks(result.log)
    for request, (_, _, output) in enumerate(rows):
        seen = tokens[request][:output]  # an answer of no tokens has a prefill all the same
        assert (np.diff(seen) > 0).all()
        assert table.first_token_tick[request] == (seen[0] if seen else NEVER)
        if table.outcome[request] == Outcome.SERVED:
            assert len(seen) == output
            assert not seen or table.finish_tick[request] == seen[-1]
    preemptions = np.bincount(result.log.events[result.log.events[:, 1] == LifeEvent.PREEMPTED, 0], minlength=size)
    assert preemptions.tolist() == table.preemptions.tolist()
    event(f"preempted: {preemptions.any()}, lost replicas: {len(result.rentals) > replicas}")
