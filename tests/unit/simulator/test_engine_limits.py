"""What a controller may see, which runs are refused, and runs of nothing: in both engines."""

import math

import numpy as np
import pytest

from simulator.engine import ENGINES, EngineSettings, Observation, choose_engine
from simulator.engine.results import RunResult
from simulator.errors import InputError
from simulator.fleet.reality import Reality
from simulator.replica.outcome import Outcome
from tests.engine_bench import (
    Bench,
    Script,
    agreed,
    batching,
    column,
    offer,
    outcomes,
    plan,
    run,
    seconds,
    static,
    workload,
)

A = plan({"a": 1})


SUMS = tuple(name for name in Observation.__slots__ if name != "now_s")

each_engine = pytest.mark.parametrize("name", ENGINES)


def engine(name, settings, rows=((0, 0, 1),), progress=None):
    script = Script([A])
    make = choose_engine(name).engine
    return make(workload(rows), script, lambda _: offer(static()), settings, Reality(), progress), script


def sums(seen):
    """The columns of an observation in the order of their declaration."""
    return [getattr(seen, name).tolist() for name in SUMS]


def test_observation_shows_neither_future_arrivals_nor_answers_under_way():
    rows = [(0, 1, 40), (10, 2, 200), (99, 3, 0), (100, 4, 1), (150, 5, 7)]
    first, second, third = agreed(rows, [A], static(slots=None), interval=100, horizon=300).seen
    assert sums(first) == [[0]] * 6
    assert second.now_s == seconds(100)
    # Three have arrived; the first and the third, which has no answer, have finished.
    assert sums(second) == [[3], [1 + 2 + 3], [2], [40], [40], [40 * 40]]
    # Only what is new: two arrivals, and they have finished; the answer of 200 is still under way.
    assert sums(third) == [[2], [4 + 5], [2], [1 + 7], [4 * 1 + 5 * 7], [1 + 7 * 7]]


def test_observation_counts_an_answer_when_it_is_complete():
    rows = [(0, 3, 150), (120, 1, 2)]
    seen = agreed(rows, [A], static(slots=None), interval=100, horizon=400).seen
    assert [sums(part)[:4] for part in seen] == [
        [[0], [0], [0], [0]],
        [[1], [3], [0], [0]],
        [[1], [1], [2], [152]],
        [[0], [0], [0], [0]],
    ]


def test_observation_has_the_types_of_the_requests_and_those_that_were_rejected():
    rows = [(0, 1, 1, 0), (1, 9, 9, 1), (2, 50, 9, 1)]
    target = plan({"a": 1}, {"q": {"a": 1.0}}, {"p": 1.0})
    story = agreed(rows, [target], static(kv=20), types=("p", "q"), interval=100, horizon=150)
    assert outcomes(story.result) == [Outcome.REJECTED_UNMET, Outcome.SERVED, Outcome.REJECTED_TOO_LARGE]
    assert sums(story.seen[1]) == [[1, 2], [1, 59], [0, 1], [0, 9], [0, 81], [0, 81]]


def test_observation_leaves_out_what_happens_at_its_own_tick():
    """Control comes before the arrivals and the boundaries of a tick."""
    seen = agreed([(0, 1, 100), (100, 1, 1)], [A], static(slots=None), interval=100, horizon=300).seen
    assert [part.arrived.tolist() for part in seen] == [[0], [1], [1]]
    assert [part.finished.tolist() for part in seen] == [[0], [0], [2]]


@each_engine
def test_observations_are_the_controllers_own(name):
    """What a controller does to them does not reach the engine, and they do not change behind its back."""
    kept = []

    class Vandal(Script):
        def replan(self, seen, incumbent):
            kept.append(sums(seen))
            for column_name in SUMS:
                getattr(seen, column_name)[:] += 1000
            return super().replan(seen, incumbent)

    bench = Bench([(0, 0, 5), (90, 0, 50)], [A], static(slots=None), interval=100, horizon=400, engine=name)
    bench.subject._controller = vandal = Vandal([A])
    bench.run()
    assert kept == [[[0]] * 6, [[2], [0], [1], [5], [0], [25]], [[0], [0], [1], [50], [0], [2500]], [[0]] * 6]
    assert [sums(seen)[0] for seen in vandal.seen] == [[1000], [1002], [1000], [1000]]


@each_engine
def test_observations_are_whole_numbers_of_each_type(name):
    bench = Bench([(0, 0, 5)], [A], static(), types=("q", "r", "s"), interval=100, horizon=200, engine=name)
    bench.run()
    for seen in bench.script.seen:
        assert isinstance(seen.now_s, float)
        for column_name in SUMS:
            assert getattr(seen, column_name).dtype == np.int64
            assert getattr(seen, column_name).shape == (3,)


def test_large_answers_do_not_overflow_the_sums():
    """The square of the longest answer that is allowed, a hundred times."""
    seen = agreed([(0, 10**8, 10**8)] * 100, [A], static(slots=None, decode=0), interval=10, horizon=20).seen
    assert sums(seen[1]) == [[100], [10**10], [100], [10**10], [10**18], [10**18]]


@each_engine
@pytest.mark.parametrize("horizon", [100, 101])
def test_horizon_must_be_after_the_last_arrival(horizon, name):
    bench = Bench([(100, 0, 1)], [A], static(), horizon=horizon, engine=name)
    if horizon > 100:
        assert bench.run().count(Outcome.SERVED) == 1
    else:
        with pytest.raises(InputError, match="horizon"):
            bench.run()


@each_engine
@pytest.mark.parametrize(
    ("horizon_s", "grace_s"),
    [(2.0**22, 0.0), (49 * 86400.0, 600.0), (2.0**22 - 600, 601.0), (1.0, 2.0**22), (1e9, 1e9)],
)
def test_run_of_more_than_48_days_is_refused(horizon_s, grace_s, name):
    settings = EngineSettings(interval_s=1e9, horizon_s=horizon_s, grace_s=grace_s)
    with pytest.raises(InputError, match="48"):
        engine(name, settings)[0].run()


@each_engine
def test_run_of_48_days_is_possible(name):
    result = engine(name, EngineSettings(interval_s=1e9, horizon_s=48 * 86400.0))[0].run()
    assert result.end_s == 48 * 86400.0


@each_engine
@pytest.mark.parametrize("number", [math.nan, math.inf, -1.0])
def test_times_that_are_none_are_refused(number, name):
    for settings in (
        EngineSettings(interval_s=1e9, horizon_s=number),
        EngineSettings(interval_s=1e9, horizon_s=1.0, grace_s=number),
    ):
        with pytest.raises(InputError):
            engine(name, settings)[0].run()


def test_run_without_requests():
    result = run([], [A], batching(), horizon=100, interval=30)
    assert isinstance(result, RunResult)
    assert len(result.requests) == 0
    assert result.count(Outcome.SERVED) == 0
    assert result.rentals[0].steps == 0


def test_fleet_without_replicas_rejects_everything():
    result = run([(0, 1, 1)], [plan({}, {}, {"q": 1.0})], batching())
    assert outcomes(result) == [Outcome.REJECTED_UNMET]
    assert result.rentals == ()


def test_replans_are_at_multiples_of_the_interval_up_to_the_horizon():
    seen = agreed([], [A], static(), interval=30, horizon=90).seen
    assert [part.now_s for part in seen] == [0, seconds(30), seconds(60)]


@each_engine
def test_no_replan_at_the_tick_of_the_horizon(name):
    """As a float, 49 x (1/49 s) is just below one second, but it is the same tick."""
    subject, script = engine(name, EngineSettings(interval_s=1 / 49, horizon_s=1.0))
    subject.run()
    assert len(script.seen) == 49


@each_engine
def test_progress_is_told_at_every_replan(name):
    shares = []
    engine(name, EngineSettings(interval_s=0.25, horizon_s=1.0), progress=shares.append)[0].run()
    assert shares == [0.25, 0.5, 0.75]


def test_times_of_the_table():
    result = run([(10, 3, 5), (20, 3, 1), (30, 3, 0), (40, 99, 1)], [A], batching(kv=50))
    table = result.requests
    assert column(result, "finish_tick")[:3] == [60, 30, 40]
    assert table.ttft_s.tolist()[:2] == [seconds(10), seconds(10)]
    assert np.isnan(table.ttft_s[2:]).all()
    assert table.e2e_s.tolist()[:3] == [seconds(50), seconds(10), seconds(10)]
    assert np.isnan(table.e2e_s[3])
    assert table.tpot_s[0] == seconds(10)
    assert np.isnan(table.tpot_s[1:]).all()
    assert table.finish_s.tolist()[:3] == [seconds(60), seconds(30), seconds(40)]
    assert table.arrival_s.tolist() == [seconds(tick) for tick in (10, 20, 30, 40)]
