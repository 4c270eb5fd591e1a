"""A user's own functions in both engines. They depend on every argument, so that a wrong one would show."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from numba import njit

from simulator.delay.port import StepCost
from simulator.engine import choose_engine
from simulator.replica.extension import CustomStep
from simulator.ticks import TICKS_PER_S
from tests.engine_bench import LONG, agreed, batching, offer, plan, static

pytestmark = pytest.mark.skipif(choose_engine().name != "compiled", reason="there is no compiled engine here")

TICK_S = 1 / TICKS_PER_S


@njit
def erratic_step(prefill_tokens, sequences, context_tokens, base_s, prefill_s, decode_s, context_s):
    affine_s = base_s + prefill_s * prefill_tokens + decode_s * sequences + context_s * context_tokens
    return affine_s + (7 * prefill_tokens + 13 * sequences + 17 * context_tokens) % 11 * base_s / 4


@njit
def crowded_step(prefill_tokens, sequences, context_tokens, base_s, prefill_s, decode_s, context_s):
    return base_s + 3 * decode_s * max(0, sequences - 2)


@njit
def erratic_admission(prompt_tokens, free_kv_tokens, budget_tokens, sequences, waiting):
    """Sometimes nobody; sometimes less than the budget allows, nothing at all among it, and sometimes more."""
    mixed = 3 * prompt_tokens + 5 * free_kv_tokens + 7 * budget_tokens + 11 * sequences + 13 * waiting
    if mixed % 5 == 0:
        return -1
    return mixed % 7 if mixed % 3 else prompt_tokens + 5


@njit
def batch_by_batch(prompt_tokens, free_kv_tokens, budget_tokens, sequences, waiting):
    return -1 if sequences > 0 or budget_tokens <= 0 else min(prompt_tokens, budget_tokens)


@njit
def erratic_router(outstanding_tokens, held, routed, uniform, input_tokens, output_tokens):
    mixed = routed + int(uniform * 1000) + 3 * input_tokens + 5 * output_tokens
    for position in range(len(held)):
        mixed += (position + 1) * (7 * outstanding_tokens[position] + 11 * held[position])
    return mixed % len(outstanding_tokens)


COST = StepCost(
    base_s=12 * TICK_S,
    prefill_s_per_token=1.5 * TICK_S,
    decode_s_per_sequence=2.25 * TICK_S,
    context_s_per_token=0.3 * TICK_S,
)
STEPS = st.sampled_from([None, CustomStep(erratic_step, COST), CustomStep(crowded_step, COST)])
ADMISSIONS = st.sampled_from([None, erratic_admission, batch_by_batch])
SPECS = st.builds(
    lambda kv, budget, step, admission: replace(
        batching(kv, budget, base=3, prefill=1, context=1), step_time=step, admission=admission
    ),
    kv=st.integers(25, 90) | st.just(LONG),
    budget=st.integers(1, 40),
    step=STEPS,
    admission=ADMISSIONS,
)
ROUTERS = st.sampled_from(["least_outstanding_tokens", erratic_router])


@st.composite
def workloads(draw, types=1):
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    size = draw(st.integers(1, 40))
    columns = (
        np.cumsum(rng.choice([0, 0, 2, 9, 40], size)),
        rng.integers(0, 12, size),
        rng.choice([0, 1, 2, 5, 13], size),
        rng.integers(0, types, size),
    )
    return list(zip(*(column.tolist() for column in columns), strict=True))


MANY = settings(deadline=None, max_examples=200)


@MANY
@given(
    workloads(), SPECS, ROUTERS, st.lists(st.integers(1, 4), min_size=1, max_size=3), st.sampled_from([60, 500, 5000])
)
def test_functions_of_the_user(rows, spec, router, counts, grace):
    story = agreed(
        rows,
        [plan({"a": count}) for count in counts],
        offer(spec, startup=20),
        balancer=router,
        interval=50,
        grace=grace,
        token_log=True,
    )
    event(f"preemptions: {story.requests.preemptions.any()}, all served: {story.requests.served.all()}")


@settings(deadline=None, max_examples=60)
@given(workloads(types=2), SPECS, SPECS, st.integers(1, 2))
def test_each_deployment_has_its_own_functions(rows, first, second, replicas):
    """A `World` gives all the same ones, but a specification is of one deployment."""
    shares = {"p": {"a": 1.0}, "q": {"b": 1.0}}
    offers = {"a": offer(first), "b": offer(second)}
    agreed(rows, [plan({"a": replicas, "b": 1}, shares)], offers, types=("p", "q"), grace=2000)


@settings(deadline=None, max_examples=60)
@given(workloads(), st.integers(1, 5), st.integers(0, 10**6))
def test_router_of_the_user_in_the_static_world(rows, replicas, seed):
    plans = [plan({"a": replicas}), plan({"a": replicas + 2})]
    agreed(rows, plans, static(kv=60, slots=2), balancer=erratic_router, seed=seed, interval=60)


def test_a_rule_that_refuses_an_idle_replica_is_asked_again_with_the_next_arrival():
    """The head waits although nothing runs; `waiting` is 2 when the second request comes."""

    @njit
    def two_at_once(prompt_tokens, free_kv_tokens, budget_tokens, sequences, waiting):
        return prompt_tokens if waiting >= 2 or budget_tokens < 100 else -1

    spec = replace(batching(budget=100), admission=two_at_once)
    story = agreed([(0, 5, 2), (50, 5, 2)], [plan({"a": 1})], spec)
    assert story.requests.start_tick.tolist() == [50, 50]
    assert story.requests.finish_tick.tolist() == [70, 70]
    assert story.summary.rentals[0].steps == 2


@pytest.mark.parametrize("kv", [40, LONG])
def test_a_step_time_that_is_the_affine_one_changes_nothing(kv):
    @njit
    def affine(prefill_tokens, sequences, context_tokens, base_s, prefill_s, decode_s, context_s):
        return base_s + prefill_s * prefill_tokens + decode_s * sequences + context_s * context_tokens

    cost = StepCost(
        base_s=9 * TICK_S, prefill_s_per_token=TICK_S, decode_s_per_sequence=2 * TICK_S, context_s_per_token=3 * TICK_S
    )
    own = batching(kv, 20, base=9, prefill=1, decode=2, context=3)
    assert cost.ticks() == own.step
    rows = [(i * 17, i % 9, i % 14) for i in range(40)]
    stories = [agreed(rows, [plan({"a": 2})], spec) for spec in (own, replace(own, step_time=CustomStep(affine, cost)))]
    assert stories[0].requests.finish_tick.tolist() == stories[1].requests.finish_tick.tolist()
    assert stories[0].summary.rentals == stories[1].summary.rentals
