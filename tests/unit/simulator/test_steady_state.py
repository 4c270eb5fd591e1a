"""Limiting cases of `simulator/replica/steady_state.py`; `tests/statistical/test_steady_state_agrees.py` has the
others.
"""

from dataclasses import replace

import numpy as np
import pytest

from simulator.delay import StepCost
from simulator.moments import TokenMoments
from simulator.replica.batching import BATCHING, BatchingReplica
from simulator.replica.port import ReplicaSpec, RequestBook, TypeLoad
from simulator.replica.steady_state import steady_state
from simulator.ticks import TICKS_PER_S

STEP = StepCost(base_s=8e-3, prefill_s_per_token=3.2e-5, decode_s_per_sequence=3.2e-5, context_s_per_token=6.5e-8)


def alike(h, f, rate_per_s=0.0):
    """Requests of one length."""
    return TypeLoad(rate_per_s=rate_per_s, tokens=TokenMoments.means(h, f, h * f, f * f))


def log_normal(h, f, rate_per_s=0.0, output_squared=None):
    """Coefficients of variation 1 and 0.8, independent."""
    ff = 1.64 * f * f if output_squared is None else output_squared
    return TypeLoad(rate_per_s=rate_per_s, tokens=TokenMoments.means(h, f, h * f, ff, 2.0 * h * h))


def lone(h, f, token_budget):
    """TTFT, TPOT and E2E [s] of one request that has a replica to itself, by the engine's own replica."""
    book = RequestBook()
    book.extend([h], [f])
    spec = ReplicaSpec(
        discipline=BATCHING,
        step=STEP.ticks(),
        prefill_ticks_per_token=0,
        decode_ticks_per_token=0,
        kv_capacity_tokens=10**6,
        token_budget=token_budget,
    )
    replica = BatchingReplica(0, spec, book)
    replica.enqueue(0, 0)
    while replica.next_tick is not None:
        replica.boundary(replica.next_tick)
    first, last = book.first_token_tick[0], book.finish_tick[0]
    return np.array([first, (last - first) / (f - 1), last]) / TICKS_PER_S


def found(state):
    return np.array([state.ttft_s, state.tpot_s, state.e2e_s])


@pytest.mark.parametrize("replicas", [1, 4])
@pytest.mark.parametrize("rate_per_s", [0.0, 1e-9])
@pytest.mark.parametrize("token_budget", [512, 2048])
@pytest.mark.parametrize(("h", "f"), [(1, 2), (500, 200), (512, 28), (513, 28), (2000, 28), (5000, 2)])
def test_a_lone_request_is_as_the_engine_has_it(h, f, token_budget, rate_per_s, replicas):
    state = steady_state(STEP, token_budget=token_budget, replicas=replicas, loads=[alike(h, f, rate_per_s)])
    assert found(state)[:, 0] == pytest.approx(lone(h, f, token_budget), rel=1e-6)


def test_lone_requests_of_random_length_have_the_mean_of_their_contexts():
    load = log_normal(500.0, 200.0)
    state = steady_state(STEP, token_budget=10**6, replicas=1, loads=[load])
    expected_s = STEP.step_s(0, 1, load.tokens.input_tokens + load.tokens.output_tokens / 2)
    assert state.tpot_s[0] == pytest.approx(expected_s, rel=1e-3)


def test_the_mean_step_is_that_of_the_rows():
    load = alike(500, 200, 10.0)
    state = steady_state(STEP, token_budget=2048, replicas=2, loads=[load])
    work_s = 500 * STEP.prefill_s_per_token + 199 * STEP.decode_s_per_sequence
    work_s += (199 * 500 + 199 * 200 / 2) * STEP.context_s_per_token
    assert state.work_share == pytest.approx(5.0 * work_s)
    assert state.step_s == pytest.approx(STEP.base_s / (1 - state.work_share))


@pytest.mark.parametrize("replicas", [1, 2, 8])
@pytest.mark.parametrize("load", [alike(2000, 28, 6.0), log_normal(2000.0, 28.0, 6.0)], ids=["fixed", "random"])
def test_types_that_are_the_same_are_one(load, replicas):
    load = replace(load, rate_per_s=load.rate_per_s * replicas)
    parts = [replace(load, rate_per_s=share * load.rate_per_s) for share in (0.25, 0.75)]
    whole = found(steady_state(STEP, token_budget=512, replicas=replicas, loads=[load]))
    split = found(steady_state(STEP, token_budget=512, replicas=replicas, loads=parts))
    assert split == pytest.approx(np.repeat(whole, 2, axis=1))


def test_half_the_speed_at_half_the_rate_takes_twice_the_time():
    loads = [log_normal(2000.0, 28.0, 8.0), log_normal(300.0, 300.0, 20.0)]
    slow = [replace(load, rate_per_s=load.rate_per_s / 2) for load in loads]
    once = found(steady_state(STEP, token_budget=512, replicas=4, loads=loads))
    twice = found(steady_state(STEP.scaled(2.0), token_budget=512, replicas=4, loads=slow))
    assert twice == pytest.approx(2 * once)


@pytest.mark.parametrize("replicas", [1, 4])
@pytest.mark.parametrize("load", [alike(500, 200), log_normal(2000.0, 28.0)], ids=["chat", "code"])
def test_more_load_is_slower(load, replicas):
    rates = np.linspace(0.1, 6.0, 30) * replicas
    states = [
        steady_state(STEP, token_budget=512, replicas=replicas, loads=[replace(load, rate_per_s=rate)])
        for rate in rates
    ]
    assert np.all(np.diff([state.tpot_s[0] for state in states]) > 0)
    assert np.all(np.diff([state.e2e_s[0] for state in states]) > 0)


def test_a_queue_that_grows_for_ever_has_no_steady_state():
    """At this rate the work takes 0.79 of the time, but every four steps bring more than one prompt of four steps."""
    state = steady_state(STEP, token_budget=512, replicas=1, loads=[alike(2000, 28, 11.5)])
    assert state.work_share < 1
    assert np.isinf(found(state)).all()
    state = steady_state(STEP, token_budget=512, replicas=1, loads=[alike(500, 200, 1000.0)])
    assert state.work_share > 1
    assert np.isinf(found(state)).all()


def test_many_short_answers_are_known_by_the_mean_of_the_inverse():
    """Geometric outputs: to a log-normal of the same variance, one with two tokens is a rarity."""
    load = log_normal(3000.0, 50.0, 4.0, output_squared=49.0 * 48 + 49 + 2500)
    told = replace(load, inverse_output=np.log(49.0) / 48)
    short, usual = (steady_state(STEP, token_budget=4096, replicas=1, loads=[each]).tpot_s[0] for each in (told, load))
    assert short > 1.05 * usual
