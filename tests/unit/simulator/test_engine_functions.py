"""A user's functions that give what cannot be, and plain Python ones: in both engines."""

import math
from dataclasses import replace

import pytest
from numba import njit

from simulator.delay.port import StepCost
from simulator.engine import ENGINES, choose_engine
from simulator.errors import InputError, RunError
from simulator.replica.extension import (
    CustomStep,
    address_of_admission,
    address_of_router,
    address_of_step_time,
    is_compiled,
)
from simulator.replica.outcome import Outcome
from simulator.ticks import TICKS_PER_S
from tests.engine_bench import Bench, batching, outcomes, plan

COST = StepCost(base_s=1.0, prefill_s_per_token=0.0, decode_s_per_sequence=0.0, context_s_per_token=0.0)
each_engine = pytest.mark.parametrize("engine", ENGINES)


def with_step_time(function):
    return replace(batching(), step_time=CustomStep(function, COST))


@njit
def negative(p, n, c, base, b, d, e):
    return -1.0 if n > 1 else 1e-12


@njit
def nothing(p, n, c, base, b, d, e):
    return math.nan if c > 8 else 1e-12


@njit
def endless(p, n, c, base, b, d, e):
    return math.inf if p > 5 else 1e-12


@njit
def beyond_ticks(p, n, c, base, b, d, e):
    return 2.0**22


@each_engine
@pytest.mark.parametrize(
    ("function", "gave"),
    [
        (negative, "negative: gave -1.0 s for 0 prefill tokens, 2 sequences and 10 context tokens"),
        (nothing, "nothing: gave nan s for 0 prefill tokens, 2 sequences and 10 context tokens"),
        (endless, "endless: gave inf s for 8 prefill tokens, 0 sequences and 0 context tokens"),
        (beyond_ticks, "beyond_ticks: gave 4194304.0 s for 8 prefill tokens"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_step_time_that_is_none_is_named_with_its_arguments(engine, function, gave):
    bench = Bench([(0, 4, 9), (0, 4, 9)], [plan({"a": 1})], with_step_time(function), engine=engine)
    with pytest.raises(RunError, match=gave):
        bench.run()


@each_engine
def test_step_takes_a_tick_at_least(engine):
    @njit
    def at_once(p, n, c, base, b, d, e):
        return 0.0

    table = Bench([(0, 4, 3)], [plan({"a": 1})], with_step_time(at_once), engine=engine).run().requests
    assert table.finish_tick.tolist() == [3]


@each_engine
@pytest.mark.parametrize("time_in_ticks", [0.5, 1.5, 2.5, 2.500001, 3.5])
def test_step_times_are_rounded_to_ticks_halves_to_even(engine, time_in_ticks):
    @njit
    def base(p, n, c, base_s, b, d, e):
        return base_s

    cost = replace(COST, base_s=time_in_ticks / TICKS_PER_S)
    spec = replace(batching(), step_time=CustomStep(base, cost))
    table = Bench([(0, 4, 1)], [plan({"a": 1})], spec, engine=engine).run().requests
    assert table.finish_tick.tolist() == [max(1, round(time_in_ticks))]


@each_engine
@pytest.mark.parametrize("index", [-1, 2, 10**12])
def test_router_that_leaves_the_ready_replicas_is_named(engine, index):
    @njit
    def astray(outstanding, held, routed, uniform, h, f):
        return index if routed == 1 else 0

    bench = Bench([(0, 1, 1), (5, 1, 1)], [plan({"a": 2})], batching(), balancer=astray, engine=engine)
    with pytest.raises(RunError, match=r"router astray: chose .* of 2, expected 0 or more"):
        bench.run()


@each_engine
def test_router_that_leaves_when_a_request_is_routed_again_is_named(engine):
    @njit
    def astray(outstanding, held, routed, uniform, h, f):
        return 7 if routed >= 1 else 0

    def breaker(subject, notes):
        yield subject.env.timeout(3)
        subject.fail(subject.fleet.replicas[0])

    bench = Bench(
        [(0, 1, 1)], [plan({"a": 3})], batching(), balancer=astray, engine=engine, processes=[breaker], horizon=100
    )
    with pytest.raises(RunError, match=r"router astray: chose .* of 2, expected 0 or more"):
        bench.run()


@each_engine
def test_router_is_not_asked_where_there_is_no_choice(engine):
    @njit
    def never(outstanding, held, routed, uniform, h, f):
        return -1

    result = Bench([(0, 1, 1)], [plan({"a": 1})], batching(), balancer=never, engine=engine).run()
    assert outcomes(result) == [Outcome.SERVED]


@each_engine
def test_function_that_raises_stops_the_run(engine):
    """Divided by the number of sequences, which is zero in the first step."""

    @njit
    def divides(p, n, c, base, b, d, e):
        return base * (c // n)

    bench = Bench([(0, 4, 3)], [plan({"a": 1})], with_step_time(divides), engine=engine)
    with pytest.raises((RunError, ZeroDivisionError)):
        bench.run()


@each_engine
def test_router_that_raises_stops_the_run(engine):
    @njit
    def raises(outstanding, held, routed, uniform, h, f):
        if routed == 1:
            raise ValueError("no idea")
        return 0

    bench = Bench([(0, 1, 1), (5, 1, 1)], [plan({"a": 2})], batching(), balancer=raises, engine=engine)
    with pytest.raises((RunError, ValueError)):
        bench.run()


@each_engine
def test_admission_that_raises_stops_the_run(engine):
    @njit
    def raises(prompt, room, budget, sequences, waiting):
        if prompt == 3:
            raise ValueError("unlucky number")
        return prompt

    spec = replace(batching(), admission=raises)
    with pytest.raises((RunError, ValueError)):
        Bench([(0, 3, 2)], [plan({"a": 1})], spec, engine=engine).run()


def test_plain_python_functions_run_in_the_reference_engine():
    asked = []

    def admit(prompt, room, budget, sequences, waiting):
        asked.append((prompt, room, budget, sequences, waiting))
        return min(prompt, budget)

    def step_time(p, n, c, base, b, d, e):
        return 10 / TICKS_PER_S

    def router(outstanding, held, routed, uniform, h, f):
        assert (outstanding.tolist(), held.tolist()) == ([[0, 0], [0, 11]][routed], [[0, 0], [0, 1]][routed])
        assert 0 <= uniform < 1
        return int(routed == 0)

    chosen = choose_engine("compiled", [admit, step_time, router])
    assert chosen.name == "reference"
    spec = replace(batching(kv=50, budget=6), step_time=CustomStep(step_time, COST), admission=admit)
    rows = [(0, 8, 3), (5, 2, 2)]
    bench = Bench(rows, [plan({"a": 2})], spec, engine=chosen.name, balancer=router)
    table = bench.run().requests
    assert table.replica.tolist() == [1, 0]
    assert asked == [(8, 50, 6, 0, 1), (2, 50, 6, 0, 1)]
    assert table.first_token_tick.tolist() == [20, 15]
    assert table.finish_tick.tolist() == [40, 25]


@pytest.mark.parametrize("address_of", [address_of_step_time, address_of_admission, address_of_router])
def test_function_that_does_not_fit_is_refused_by_name(address_of):
    @njit
    def takes_one(x):
        return x

    with pytest.raises(InputError, match="takes_one: cannot be compiled"):
        address_of(takes_one)


def test_function_that_gives_no_number_is_refused_by_name():
    @njit
    def pair(p, n, c, base, b, d, e):
        return base, b

    with pytest.raises(InputError, match="pair: cannot be compiled"):
        address_of_step_time(pair)


def test_compiled_functions_are_known():
    assert is_compiled(negative)
    assert not is_compiled(negative.py_func)
    assert not is_compiled(len)


def test_addresses_are_kept():
    assert address_of_step_time(negative) == address_of_step_time(negative) != address_of_step_time(nothing)
