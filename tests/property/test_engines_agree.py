"""The compiled engine against the reference: everything that a run shows, to the bit, whatever is done to it.

`agreed` runs both and compares each column of the requests, rentals, counters, what the controller and user processes
saw, the batches that a sink got, and every step and event of the token log.
"""

from contextlib import ExitStack
from itertools import accumulate
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from simulator.engine import choose_engine
from simulator.fleet.balancer import BALANCERS
from simulator.fleet.reality import OnFailure, Reality
from simulator.fleet.replicas import ReplicaState
from simulator.replica.outcome import Outcome
from simulator.ticks import MAX_TICKS, TICKS_PER_S
from tests.engine_bench import LONG, Bench, agreed, batching, offer, plan, static
from tests.exploring import examples

pytestmark = pytest.mark.skipif(choose_engine().name != "compiled", reason="there is no compiled engine here")

TYPES = ("p", "q")
TIERS = ("a", "b", "c")
COEFFICIENTS = st.sampled_from([0, 0, 1, 2, 3])
BATCHING = st.builds(
    batching,
    kv=st.integers(0, 90) | st.sampled_from([300, LONG]),
    budget=st.integers(1, 8) | st.integers(1, 64),
    base=st.integers(0, 9),
    prefill=COEFFICIENTS,
    decode=COEFFICIENTS,
    context=COEFFICIENTS,
)
STATIC = st.builds(
    static,
    kv=st.integers(0, 90) | st.sampled_from([300, LONG]),
    slots=st.none() | st.integers(1, 4),
    prefill=COEFFICIENTS,
    decode=COEFFICIENTS,
)

SPECS = BATCHING | STATIC
OFFERS = st.builds(offer, SPECS, startup=st.sampled_from([0, 0, 15, 40, 90]))
BALANCER = st.sampled_from(sorted(BALANCERS))
SEEDS = st.integers(0, 10**6)

GAPS = {
    "bursts": [0, 0, 0, 0, 60],
    "mixed": [0, 0, 1, 4, 9, 30],
    "crowd": [0, 1, 2, 3],
    "sparse": [5, 50, 500],
}
TOKENS = {
    "tiny": (range(3), range(3)),
    "short": (range(15), [0, 1, 2, 3, 5, 9, 17]),
    "long answers": (range(9), [0, 1, 40, 90]),
    "long prompts": ([0, 1, 60, 90], range(5)),
}


@st.composite
def workloads(draw, size=60):
    """Requests of both types, with prompts and answers of no tokens among them; some may be too large for anything."""
    rng = np.random.default_rng(draw(SEEDS))
    size = draw(st.integers(0, size))
    inputs, outputs = TOKENS[draw(st.sampled_from(sorted(TOKENS)))]
    columns = (
        np.cumsum(rng.choice(GAPS[draw(st.sampled_from(sorted(GAPS)))], size)),
        rng.choice(inputs, size),
        rng.choice(outputs, size),
        rng.integers(0, 2, size),
    )
    return list(zip(*(column.tolist() for column in columns), strict=True))


@st.composite
def plans(draw, most=3):
    """Deployments come and go; a share of each type may be left unmet, all of it if nothing is deployed.

    A deployment of no replicas may be named too: requests that are routed to it wait for one.
    """
    replicas = {tier: max(n, 0) for tier in TIERS if (n := draw(st.sampled_from([0, *range(-1, most + 1)])))}
    shares, unmet = {}, {}
    for name in TYPES:
        weights = [draw(st.integers(0, 3)) for _ in replicas]
        left = draw(st.sampled_from([0, 0, 1, 3]))
        total = sum(weights) + left
        if sum(weights):
            shares[name] = {tier: w / total for tier, w in zip(replicas, weights, strict=True)}
        if not sum(weights) or left:
            unmet[name] = left / total if sum(weights) else 1.0
    return plan(replicas, shares, unmet)


def failures(per_ticks):
    """Reality in which a replica lives so many ticks on average."""
    return st.builds(
        Reality,
        failures_per_replica_h=st.just(3600 * TICKS_PER_S / per_ticks if per_ticks else 0.0),
        on_failure=st.sampled_from(OnFailure),
    )


REALITIES = st.sampled_from([0, 0, 300, 60]).flatmap(failures)


def look(engine):
    """What a user process may see of the fleet. Requests that wait go by other numbers in each engine: their number."""
    return (
        engine.env.now,
        [(r.number, r.state, r.service.held, r.service.outstanding_tokens) for r in engine.fleet.replicas],
        [(r.service.steps, r.service.kv_peak_tokens, r.service.preemptions) for r in engine.fleet.replicas],
        [([r.number for r in d.ready], len(d.waiting)) for d in engine.fleet.deployments],
    )


def meddler(*acts):
    """A user process that waits, looks around, and then re-plans or lets a replica fail, again and again."""

    def process(engine, notes):
        for delay, what, which in acts:
            yield engine.env.timeout(delay)
            notes.append(look(engine))
            if what == "replan":
                engine.replan()
            elif what == "fail" and engine.fleet.replicas:
                engine.fail(engine.fleet.replicas[which % len(engine.fleet.replicas)])
            notes.append(look(engine))

    return process


MEDDLERS = st.lists(
    st.tuples(st.integers(0, 60), st.sampled_from(["look", "replan", "fail"]), st.integers(0, 20)), max_size=12
).map(lambda acts: meddler(*acts))


def in_turn(requests):
    """Rows of requests that state the gap to the one before."""
    arrivals = accumulate(gap for gap, _, _ in requests)
    return [(arrival, h, f) for arrival, (_, h, f) in zip(arrivals, requests, strict=True)]


def describe(story):
    """Say what happened, so that one can see that the examples are worth something (`--hypothesis-show-statistics`)."""
    for outcome in Outcome:
        event(f"{outcome.name}: {story.summary.count(outcome) > 0}")
    event(f"preemptions: {story.requests.preemptions.sum() > 0}")
    event(f"ended early: {any(r.end_s < story.summary.end_s for r in story.summary.rentals)}")


def check(*args, **kwargs):
    story = agreed(*args, **kwargs)
    describe(story)
    return story


MANY = settings(deadline=None, max_examples=examples(80))
SOME = settings(deadline=None, max_examples=examples(50))


@MANY
@given(st.data())
def test_whatever_happens(data):
    """All at once: re-plans, failures, meddling, several deployments with unmet shares, a grace that cuts."""
    rows = data.draw(workloads())
    horizon = (rows[-1][0] if rows else 0) + data.draw(st.integers(1, 200))
    check(
        rows,
        data.draw(st.lists(plans(), min_size=1, max_size=6)),
        {tier: data.draw(OFFERS) for tier in TIERS},
        types=TYPES,
        interval=max(data.draw(st.integers(1, 80)), horizon // 40),
        horizon=horizon,
        grace=data.draw(st.sampled_from([0, 3, 50, LONG])),
        balancer=data.draw(BALANCER),
        seed=data.draw(SEEDS),
        reality=data.draw(REALITIES),
        processes=data.draw(st.lists(MEDDLERS, max_size=2)),
        token_log=data.draw(st.booleans()),
        chunk=data.draw(st.none() | st.integers(1, 20)),
    )


@MANY
@given(workloads(), SPECS, st.integers(0, 300), BALANCER, st.integers(1, 3))
def test_a_fleet_that_stays(rows, spec, grace, balancer, replicas):
    story = check(
        [row[:3] for row in rows], [plan({"a": replicas})], spec, grace=grace, balancer=balancer, token_log=True
    )
    assert len(story.summary.rentals) == replicas


@SOME
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 9), st.integers(0, 60)), min_size=5, max_size=40),
    BATCHING,
    st.integers(68, 140),
    st.booleans(),
)
def test_a_full_cache_preempts_again_and_again(requests, spec, kv, log):
    rows = in_turn(requests)
    spec = batching(kv, spec.token_budget, *(getattr(spec.step, name) for name in spec.step.__slots__))
    story = check(rows, [plan({"a": 1})], spec, token_log=log)
    assert story.summary.count(Outcome.SERVED) == len(rows)


@SOME
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 200), st.integers(0, 12)), min_size=1, max_size=25),
    st.integers(1, 6),
    st.integers(211, 500),
    COEFFICIENTS,
    st.integers(0, 2000),
)
def test_prompts_that_take_many_steps(requests, budget, kv, coefficient, grace):
    """Budgets below the number of sequences too: then a prefill waits for an answer to end."""
    rows = in_turn(requests)
    spec = batching(kv, budget, base=2, prefill=coefficient, decode=1, context=coefficient)
    check(rows, [plan({"a": 1})], spec, grace=grace, token_log=True)


@SOME
@given(SEEDS, st.integers(2, 40), BALANCER, SPECS, st.sampled_from([0.3, 1.0, 3.0]), st.integers(0, 400))
def test_many_replicas_up_to_overload(seed, replicas, balancer, spec, load, grace):
    rng = np.random.default_rng(seed)
    size = 150
    gap = 60 / replicas / load
    rows = list(
        zip(
            np.cumsum(rng.exponential(gap, size)).astype(int).tolist(),
            rng.integers(0, 30, size).tolist(),
            rng.integers(0, 20, size).tolist(),
            strict=True,
        )
    )
    counts = [replicas, max(1, replicas + int(rng.integers(-20, 21))), replicas]
    check(
        rows,
        [plan({"a": count}) for count in counts],
        offer(spec, startup=30),
        interval=max(1, int(rows[-1][0] / 2.5)),
        grace=grace,
        balancer=balancer,
        seed=seed,
    )


@settings(deadline=None, max_examples=examples(12))
@given(SEEDS, BALANCER, st.sampled_from([0, 200]))
def test_many_deployments_and_types(seed, balancer, per_ticks):
    """Up to forty deployments, of which each plan takes some."""
    rng = np.random.default_rng(seed)
    tiers, types = [f"t{k}" for k in range(40)], tuple("pqrstuv")
    specs = [batching(60, 32, 3, 1, 1), static(60, 2, 1, 2), batching(base=2)]
    plans = []
    for _ in range(4):
        chosen = rng.choice(tiers, rng.integers(1, 41), replace=False).tolist()
        shares = {name: dict.fromkeys(rng.choice(chosen, min(3, len(chosen)), replace=False), 0.3) for name in types}
        plans.append(plan({tier: int(rng.integers(1, 3)) for tier in chosen}, shares, dict.fromkeys(types, 0.1)))
    columns = np.cumsum(rng.integers(0, 5, 150)), *rng.integers(0, 25, (2, 150)), rng.integers(0, len(types), 150)
    check(
        list(zip(*(column.tolist() for column in columns), strict=True)),
        plans,
        {tier: offer(specs[k % 3], startup=10 * (k % 4)) for k, tier in enumerate(tiers)},
        types=types,
        interval=80,
        balancer=balancer,
        seed=seed,
        reality=Reality(failures_per_replica_h=3600 * TICKS_PER_S / per_ticks if per_ticks else 0.0),
    )


HUGE = st.sampled_from([0, 1, 2**20, 2**40, 2**53 + 1, 2**59 - 1, 2**61, MAX_TICKS])


@SOME
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 0, 1, 2**41 + 3]),
            st.sampled_from([0, 1, 7, 10**5, 10**8]),
            st.sampled_from([0, 1, 2, 9, 10**4, 10**8]),
        ),
        min_size=1,
        max_size=12,
    ),
    st.builds(
        batching,
        kv=st.sampled_from([10**5, 10**8, 2**60]),
        budget=st.sampled_from([5, 2048, 10**9]),
        base=HUGE,
        prefill=HUGE,
        decode=HUGE,
        context=HUGE,
    )
    | st.builds(static, kv=st.just(2**60), slots=st.none() | st.just(2), prefill=HUGE, decode=HUGE),
    st.sampled_from([1, 2**40, 2**50, 2**61]),
    st.integers(1, 2),
)
def test_steps_and_segments_beyond_the_end_of_time(requests, spec, grace, replicas):
    """Coefficients and answers so large that a segment, or a single step, would end after 64 bits: the run is cut.

    It is cut early where steps are short, because the reference engine makes them one by one.
    """
    shortest_step = max(1, spec.step.base) if spec.discipline.name == "batching" else MAX_TICKS
    latest = 2000 * shortest_step
    rows = [(min(arrival, latest), h, f) for arrival, h, f in in_turn(requests)]
    check(rows, [plan({"a": replicas})], spec, grace=min(grace, latest), interval=2**61, token_log=True)


@SOME
@given(st.data())
def test_little_room(data):
    """Every buffer of the compiled engine starts as small as can be, and batches and chunks hold a few requests."""
    rows = data.draw(workloads(size=120))
    sizes = st.integers(1, 5)
    with ExitStack() as stack:
        for name in ("FIRST_HEAP", "FIRST_LOG", "FIRST_SLOTS"):
            stack.enter_context(patch(f"simulator.engine.kernel_memory.{name}", data.draw(sizes)))
        batch = data.draw(st.integers(1, 50))
        for module in ("reference", "compiled"):
            stack.enter_context(patch(f"simulator.engine.{module}.BATCH_REQUESTS", batch))
        stack.enter_context(patch("simulator.engine.port.CHUNK_REQUESTS", data.draw(st.integers(1, 40))))
        story = check(
            rows,
            data.draw(st.lists(plans(), min_size=1, max_size=3)),
            {tier: data.draw(OFFERS) for tier in TIERS},
            types=TYPES,
            interval=data.draw(st.sampled_from([30, LONG])),
            grace=data.draw(st.sampled_from([0, 40, LONG])),
            balancer=data.draw(BALANCER),
            reality=data.draw(REALITIES),
            token_log=data.draw(st.booleans()),
            chunk=data.draw(st.none() | st.integers(1, 20)),
        )
    assert all(len(part) == batch for part in story.batches[:-1])


def test_what_meddlers_see_is_worth_seeing():
    """The processes above see queues, failures and re-plans: this run has them all, by hand."""
    acts = [(5, "look", 0), (6, "fail", 0), (20, "replan", 0), (1, "fail", 1), (1, "look", 0)]
    story = agreed(
        [(0, 3, 9), (1, 3, 9), (25, 1, 1)],
        [plan({"a": 1}), plan({"a": 2})],
        offer(batching(), startup=100),
        horizon=200,
        processes=[meddler(*acts)],
    )
    states = [[state.name for _, state, _, _ in replicas] for _, replicas, _, _ in story.notes]
    assert states == [
        *[["READY"]] * 3,
        *[["ENDED", "LOADING"]] * 2,
        *[["ENDED", "LOADING", "LOADING"]] * 5,
    ]
    assert [replicas[0][2] for _, replicas, _, _ in story.notes[:4]] == [2, 2, 2, 0]
    assert [replicas[0][3] for _, replicas, _, _ in story.notes[:4]] == [24, 24, 24, 0]
    assert [waiting for *_, [(_, waiting)] in story.notes] == [0, 0, 0, 2, 3, 3, 3, 3, 3, 3]
    assert story.summary.count(Outcome.SERVED) == 3
    assert ReplicaState.ENDED in {state for _, replicas, _, _ in story.notes for _, state, _, _ in replicas}


def test_examples_run_on_the_engine_that_they_name():
    for name in ("reference", "compiled"):
        assert type(Bench([], [plan({"a": 1})], static(), engine=name).subject).__name__.lower().startswith(name)
