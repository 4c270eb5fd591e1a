"""Planned against simulated: means by hand, and one deployment whose load and times the planner has to know."""

import numpy as np
import pytest

from experiments.measures.agreement import Expected, Simulated, agreement_words, agreements, expected, mean_off, off
from experiments.replay.run import ReplayOptions, engine_of, horizon_of, replay_plan, survey
from experiments.scenario.demand import demand_of_sums
from simulator.engine.results import Rental, RunSummary
from simulator.moments import TokenMoments
from simulator.replica.outcome import Outcome
from tests.verify_samples import (
    FAST,
    MODEL,
    SLOW,
    configuration,
    not_served,
    plan_of,
    requests,
    served,
    small,
    trace_of,
)
from traces.source import TraceInMemory

SLOW_KEY, FAST_KEY = (configuration(tier).deployment_key for tier in (SLOW, FAST))
LONG_S = 1800.0


def replayed(scenario, plan, trace):
    arriving = survey(scenario, TraceInMemory(trace))
    engine, functions = engine_of(scenario)
    options = ReplayOptions(interval_s=horizon_of(arriving.survey.span_s), seed=0, engine=engine, functions=functions)
    return replay_plan(scenario, arriving, plan, options).agreement


def poisson(rate_per_s, inputs, outputs, seed, duration_s=LONG_S):
    """Arrivals at random; `inputs` and `outputs` draw the lengths."""
    draw = np.random.default_rng(seed)
    count = int(rate_per_s * duration_s)
    arrival_s = np.sort(draw.uniform(0, duration_s, count))
    return trace_of(arrival_s, inputs(draw, count), outputs(draw, count))


def constant(tokens):
    return lambda draw, count: np.full(count, tokens)


def random(tokens, sigma):
    return lambda draw, count: np.clip(np.round(tokens * np.exp(draw.normal(-(sigma**2) / 2, sigma, count))), 2, 1000)


class TestOneDeployment:
    @pytest.mark.parametrize(
        ("tier", "replicas", "rate_per_s", "inputs", "outputs"),
        [
            (SLOW, 1, 8.0, constant(600), constant(120)),
            (FAST, 1, 30.0, constant(600), constant(120)),
            (FAST, 3, 90.0, constant(300), constant(200)),
            (FAST, 1, 25.0, random(500, 0.7), random(150, 0.8)),
            (SLOW, 2, 25.0, random(300, 0.6), random(100, 0.5)),
            (FAST, 1, 12.0, constant(1500), constant(12)),  # short answers among long prompts: no mean step is theirs
        ],
    )
    def test_the_planner_knows_load_and_times(self, tmp_path, tier, replicas, rate_per_s, inputs, outputs):
        scenario = small(tmp_path)
        plan = plan_of({tier: replicas}, {"chat": {tier: 1.0}, "long": {tier: 1.0}})
        (row,) = replayed(scenario, plan, poisson(rate_per_s, inputs, outputs, seed=1))
        assert row.replica_hours == pytest.approx(replicas * LONG_S / 3600)
        assert 0.25 < row.simulated_load < 0.8
        assert row.planned_load == pytest.approx(row.simulated_load, rel=0.03)
        assert row.planned_tpot_s == pytest.approx(row.simulated_tpot_s, rel=0.05)
        assert row.planned_delay_s == pytest.approx(row.simulated_delay_s, rel=0.1)

    def test_each_deployment_gets_its_share(self, tmp_path):
        """Two thirds of one type here, one third and the other type there; the row with more requests comes first."""
        plan = plan_of({SLOW: 1, FAST: 1}, {"chat": {SLOW: 1 / 3, FAST: 2 / 3}, "long": {FAST: 1.0}})
        rows = replayed(small(tmp_path), plan, poisson(15.0, random(600, 0.8), constant(60), seed=2))
        assert [row.deployment.split()[2] for row in rows] == [FAST, SLOW]
        assert rows[0].requests > rows[1].requests
        for row in rows:
            assert row.planned_load == pytest.approx(row.simulated_load, rel=0.05)
            assert row.planned_tpot_s == pytest.approx(row.simulated_tpot_s, rel=0.05)

    def test_a_queue_that_grows_for_ever_is_not_planned_for(self, tmp_path):
        plan = plan_of({SLOW: 1}, {"chat": {SLOW: 1.0}, "long": {SLOW: 1.0}})
        (row,) = replayed(small(tmp_path), plan, poisson(60.0, constant(600), constant(120), seed=3, duration_s=60.0))
        assert (row.planned_tpot_s, row.planned_delay_s) == (None, None)
        assert row.planned_load > 1


class TestStatic:
    """Requests of constant length and slots to spare: delay and time per token to the tick, load by Little's law."""

    def test_the_two_phase_delay_and_the_kv_cache(self, tmp_path):
        changes = ('discipline = "batching"', 'discipline = "static"'), ('capacity = "batching"', 'capacity = "paper"')
        scenario = small(tmp_path, *changes)
        plan = plan_of({SLOW: 2}, {"chat": {SLOW: 1.0}, "long": {SLOW: 1.0}})
        (row,) = replayed(scenario, plan, poisson(3.0, constant(600), constant(120), seed=4))
        delay = scenario.delay_model.request_delay(scenario.catalog.models[MODEL], scenario.catalog.tiers[SLOW], 1, 1)
        delay_s = delay.prefill_s_per_token * 600 + delay.decode_s_per_token * 120
        assert row.planned_delay_s == pytest.approx(delay_s)
        assert row.simulated_delay_s == pytest.approx(delay_s)
        assert row.planned_tpot_s == pytest.approx(row.simulated_tpot_s)
        assert row.planned_load == pytest.approx(
            3.0 * delay_s * 720 / scenario.nominal_replica(SLOW_KEY).kv_capacity_tokens / 2, rel=1e-3
        )
        assert row.planned_load == pytest.approx(row.simulated_load, rel=0.01)


def run_of(*rentals, horizon_s=100.0):
    """Rentals of (deployment, ready, end)."""
    return RunSummary(
        types=("chat", "long"),
        deployments=(SLOW_KEY, FAST_KEY),
        counts={},
        rentals=tuple(
            Rental(
                replica=n,
                deployment=deployment,
                gpus=1,
                price_usd_per_h=1.0,
                rent_s=ready_s - 45.0,
                ready_s=ready_s,
                end_s=end_s,
                kv_capacity_tokens=1000,
                kv_peak_tokens=1,
                preemptions=0,
                steps=1,
            )
            for n, (deployment, ready_s, end_s) in enumerate(rentals)
        ),
        plans=(),
        end_s=horizon_s,
        horizon_s=horizon_s,
        events=0,
        engine_cpu_s=0.0,
    )


def said(replicas=1, requests_per_s=1.0, load=0.5, tpot_s=0.02, delay_s=1.0):
    return Expected(replicas=replicas, requests_per_s=requests_per_s, load=load, tpot_s=tpot_s, delay_s=delay_s)


class TestByHand:
    @pytest.fixture
    def scenario(self, tmp_path):
        return small(tmp_path)

    def test_what_the_requests_had(self, scenario):
        """In two batches: means over those that have the time; the work of all that were routed."""
        rows = [
            served(0, 0.0, 1.0, 3.0, inputs=100, outputs=11),
            served(0, 1.0, 1.0, 5.0, inputs=100, outputs=41),
            served(1, 2.0, 1.0, 1.0, inputs=2000, outputs=1),
            not_served(0, 3.0, Outcome.FAILED),
            not_served(0, 4.0, deployment=-1),
            served(0, 5.0, 1.0, 9.0, deployment=1),
        ]
        simulated = Simulated(scenario)
        simulated.add(requests(*rows[:2]))
        simulated.add(requests(*rows[2:]))
        slow, _ = agreements(run_of((0, 0.0, 200.0), (0, 50.0, 70.0), (1, 0.0, 100.0)), simulated, [])
        step = scenario.step_cost(SLOW_KEY)
        h, f = np.array([100.0, 100.0, 2000.0, 600.0]), np.array([11.0, 41.0, 1.0, 11.0])
        assert slow.requests == 3
        assert slow.replica_hours == pytest.approx(120 / 3600), "until the horizon"
        assert slow.simulated_delay_s == pytest.approx((3 + 5 + 1) / 3)
        assert slow.simulated_tpot_s == pytest.approx((2 / 10 + 4 / 40) / 2)
        assert slow.simulated_load == pytest.approx(step.work_s(h, f).sum() / 120)
        assert (slow.planned_load, slow.planned_tpot_s, slow.planned_delay_s) == (None, None, None)

    def test_plans_are_averaged_over_replicas_and_time_or_requests(self, scenario):
        """One replica at 0.8 for 30 s, then three at 0.4 for 70 s; 2 requests a second, then 6."""
        says = [
            (0.0, {SLOW_KEY: said(1, 2.0, 0.8, 0.04, 3.0)}),
            (30.0, {SLOW_KEY: said(3, 6.0, 0.4, 0.02, 1.0), FAST_KEY: said(load=0.1)}),
        ]
        simulated = Simulated(scenario)
        simulated.add(requests(served(0, 0.0, 1.0, 2.0), served(0, 50.0, 1.0, 2.0, deployment=1)))
        rows = {
            row.deployment.split()[2]: row for row in agreements(run_of((0, 0, 100), (1, 30, 100)), simulated, says)
        }
        slow, fast = rows[SLOW], rows[FAST]
        assert slow.planned_load == pytest.approx((0.8 * 30 + 0.4 * 3 * 70) / (30 + 210))
        assert slow.planned_tpot_s == pytest.approx((0.04 * 60 + 0.02 * 420) / 480)
        assert slow.planned_delay_s == pytest.approx((3.0 * 60 + 1.0 * 420) / 480)
        assert (fast.planned_load, fast.planned_delay_s) == (pytest.approx(0.1), pytest.approx(1.0))

    def test_what_grows_for_ever_has_no_mean(self, scenario):
        says = [(0.0, {SLOW_KEY: said(tpot_s=np.inf)}), (50.0, {SLOW_KEY: said(delay_s=np.nan)})]
        (slow, _) = agreements(run_of((0, 0, 100), (1, 0, 100)), Simulated(scenario), says)
        assert slow.planned_tpot_s is None
        assert slow.planned_delay_s == pytest.approx(1.0), "what is not known is left out"
        assert (slow.simulated_tpot_s, slow.simulated_delay_s) == (None, None)

    def test_a_deployment_without_demand(self, scenario):
        plan = plan_of({SLOW: 2, FAST: 1}, {"chat": {SLOW: 1.0}, "long": {SLOW: 1.0}})
        sums = np.array([[100.0, 0], [6e4, 0], [1.2e4, 0], [7.2e6, 0], [1.44e6, 0], [3.6e7, 0]])
        demand = demand_of_sums(TokenMoments(sums), 100.0)
        found = expected(scenario, demand, plan)
        assert (found[FAST_KEY].requests_per_s, found[FAST_KEY].load) == (0.0, 0.0)
        assert np.isnan(found[FAST_KEY].tpot_s)
        assert found[SLOW_KEY].requests_per_s == pytest.approx(1.0)
        assert found[SLOW_KEY].load == pytest.approx(float(scenario.step_cost(SLOW_KEY).work_s(600.0, 120.0)) / 2)


def row(requests_, planned, simulated):
    return {"requests": requests_, "planned_load": planned, "simulated_load": simulated}


def test_how_far_off_by_requests_and_whatever_the_sign():
    assert off(1.1, 1.0) == pytest.approx(0.1)
    assert (off(None, 1.0), off(1.0, None), off(1.0, 0.0)) == (None, None, None)
    rows = [row(30, 1.1, 1.0), row(10, 0.7, 1.0), row(500, np.nan, 1.0), row(0, 9.0, 1.0), row(5, None, 1.0)]
    assert mean_off(rows, "load") == pytest.approx((30 * 0.1 + 10 * 0.3) / 40)
    assert mean_off(rows[2:], "load") is None
    blank = {f"{side}_{name}": None for side in ("planned", "simulated") for name in ("tpot_s", "delay_s")}
    assert agreement_words([{**rows[0], **blank}]) == (
        "Planned against simulated, mean over requests: off in load by 10.0 %."
    )
    assert "cannot be compared" in agreement_words([{**rows[4], **blank}])
