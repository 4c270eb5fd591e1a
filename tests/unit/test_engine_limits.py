"""What a controller may see, which runs are refused, and runs of nothing."""

import math

import numpy as np
import pytest

from simulator.engine import EngineSettings, ReferenceEngine
from simulator.errors import InputError
from simulator.outcome import Outcome
from simulator.reality import Reality
from simulator.results import RunResult
from tests.engine_bench import Bench, Script, batching, column, offer, outcomes, plan, run, seconds, static, workload

A = plan({"a": 1})


def engine(settings, rows=((0, 0, 1),), progress=None):
    script = Script([A])
    return ReferenceEngine(workload(rows), script, lambda _: offer(static()), settings, Reality(), progress), script


def test_past_shows_neither_future_arrivals_nor_answers_under_way():
    rows = [(0, 1, 40), (10, 2, 200), (99, 3, 0), (100, 4, 1), (150, 5, 7)]
    bench = Bench(rows, [A], static(slots=None), interval=100, horizon=300)
    bench.run()
    first, second, third = bench.script.pasts
    assert len(first.arrival_s) == len(first.finished) == 0
    assert second.now_s == seconds(100)
    assert second.arrival_s.tolist() == [seconds(tick) for tick in (0, 10, 99)]
    assert second.input_tokens.tolist() == [1, 2, 3]
    assert second.finished.tolist() == [True, False, True]
    assert second.output_tokens.tolist() == [40, 0, 0]
    assert third.input_tokens.tolist() == [1, 2, 3, 4, 5]
    assert third.output_tokens.tolist() == [40, 0, 0, 1, 7]


def test_past_has_the_types_of_the_requests_and_those_that_were_rejected():
    rows = [(0, 1, 1, 0), (1, 9, 9, 1), (2, 50, 9, 1)]
    target = plan({"a": 1}, {"q": {"a": 1.0}}, {"p": 1.0})
    bench = Bench(rows, [target], static(kv=20), types=("p", "q"), interval=100, horizon=150)
    result = bench.run()
    assert outcomes(result) == [Outcome.REJECTED_UNMET, Outcome.SERVED, Outcome.REJECTED_TOO_LARGE]
    past = bench.script.pasts[1]
    assert past.query_type.tolist() == [0, 1, 1]
    assert past.finished.tolist() == [False, True, False]
    assert past.output_tokens.tolist() == [0, 9, 0]


def test_past_answers_are_a_copy():
    """What a controller does to them does not reach the engine, and they do not change behind its back."""
    bench = Bench([(0, 0, 5), (90, 0, 50)], [A], static(slots=None), interval=100, horizon=300)
    bench.run()
    early = bench.script.pasts[1]
    assert early.finished.tolist() == [True, False]
    assert early.output_tokens.tolist() == [5, 0]


@pytest.mark.parametrize("horizon", [100, 101])
def test_horizon_must_be_after_the_last_arrival(horizon):
    bench = Bench([(100, 0, 1)], [A], static(), horizon=horizon)
    if horizon > 100:
        assert bench.run().count(Outcome.SERVED) == 1
    else:
        with pytest.raises(InputError, match="horizon"):
            bench.run()


@pytest.mark.parametrize(
    ("horizon_s", "grace_s"),
    [(2.0**22, 0.0), (49 * 86400.0, 600.0), (2.0**22 - 600, 601.0), (1.0, 2.0**22), (1e9, 1e9)],
)
def test_run_of_more_than_48_days_is_refused(horizon_s, grace_s):
    settings = EngineSettings(interval_s=1e9, horizon_s=horizon_s, grace_s=grace_s)
    with pytest.raises(InputError, match="48"):
        engine(settings)[0].run()


def test_run_of_48_days_is_possible():
    result = engine(EngineSettings(interval_s=1e9, horizon_s=48 * 86400.0))[0].run()
    assert result.end_s == 48 * 86400.0


@pytest.mark.parametrize("number", [math.nan, math.inf, -1.0])
def test_times_that_are_none_are_refused(number):
    for settings in (
        EngineSettings(interval_s=1e9, horizon_s=number),
        EngineSettings(interval_s=1e9, horizon_s=1.0, grace_s=number),
    ):
        with pytest.raises(InputError):
            engine(settings)[0].run()


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
    bench = Bench([], [A], static(), interval=30, horizon=90)
    bench.run()
    assert [past.now_s for past in bench.script.pasts] == [0, seconds(30), seconds(60)]


def test_no_replan_at_the_tick_of_the_horizon():
    """As a float, 49 x (1/49 s) is just below one second, but it is the same tick."""
    subject, script = engine(EngineSettings(interval_s=1 / 49, horizon_s=1.0))
    subject.run()
    assert len(script.pasts) == 49


def test_progress_is_told_at_every_replan():
    shares = []
    engine(EngineSettings(interval_s=0.25, horizon_s=1.0), progress=shares.append)[0].run()
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
