"""What is learned from a simulation, on request tables by hand: the load that is too much over the load that is met."""

import numpy as np
import pytest

from experiments.scenario.slo import PercentileSlo
from experiments.verify.guess import window_of
from experiments.verify.learning import LEAST, MOST, local_load, needs
from tests.verify_samples import (
    FAST,
    SLOW,
    configuration,
    not_served,
    of_type,
    plan_of,
    requests,
    sample_of,
    served,
    small,
)

CHAT, LONG = 0, 1
SLOW_KEY, FAST_KEY = (configuration(tier).deployment_key for tier in (SLOW, FAST))
TTFT = PercentileSlo(measure="ttft_s", level=0.95, limit_s=2.0)
TRIPLES = [3] * 3 + [2] * 10 + [1] * 71  # requests at once: 9 in threes, 20 in pairs, 71 alone


@pytest.fixture
def scenario(tmp_path):
    return small(tmp_path)


def clusters(sizes, late, kind=CHAT, deployment=0, since_s=0.0):
    """Rows of groups of requests at the same time, 1000 s apart; the first `late` take 3 s to the first token."""
    arrivals_s = np.repeat(since_s + 1000.0 * np.arange(len(sizes)), sizes).tolist()
    return [
        served(kind, at_s, 3.0 if n < late else 1.0, 5.0, deployment=deployment) for n, at_s in enumerate(arrivals_s)
    ]


def learn(scenario, rows, slos=((TTFT,), ()), guard=1.0, plan=None):
    plan = plan or plan_of({SLOW: 1}, {"chat": {SLOW: 1.0}, "long": {SLOW: 1.0}})
    rows = sorted(rows, key=lambda row: row[1])
    types = [of_type([row[1] for row in rows if row[0] == kind], 600, 11) for kind in (CHAT, LONG)]
    return needs(scenario, sample_of(*types, horizon_s=1e6), plan, requests(*rows), slos, guard)


@pytest.mark.parametrize(("late", "factor"), [(25, 3 / 2), (20, 3 / 2), (40, MOST), (8, LEAST), (100, MOST)])
def test_the_factor_is_the_load_that_5_percent_exceed_over_that_of_the_late(scenario, late, factor):
    """Load in requests around: at p95 it is 3. 25 late of 100 start at 2, 40 at 1 (the factor is then above the most
    that is believed), 8 at 3 (below the least)."""
    (found,) = learn(scenario, clusters(TRIPLES, late)).items()
    key, need = found
    assert key == SLOW_KEY
    assert (need.query_type, need.slo) == (CHAT, TTFT)
    assert need.factor == pytest.approx(factor)


def test_the_order_of_the_loads_alone_counts(scenario):
    """Which of them were late is no matter, nor how late."""
    rows = clusters(TRIPLES, 25)
    times = [row[2] for row in rows]
    turned = [(*row[:2], 50 * t, 100 * t, *row[4:]) for row, t in zip(rows, reversed(times), strict=True)]
    slo = PercentileSlo(measure="ttft_s", level=0.95, limit_s=100.0)
    assert learn(scenario, turned, slos=((slo,), ()))[SLOW_KEY].factor == pytest.approx(1.5)


@pytest.mark.parametrize(("late", "listed"), [(0, False), (4, False), (5, False), (6, True)])
def test_a_deployment_that_keeps_its_limits_is_not_listed(scenario, late, listed):
    assert bool(learn(scenario, clusters(TRIPLES, late))) is listed


@pytest.mark.parametrize(("level", "late"), [(0.9, 10), (0.71, 29), (0.95, 5), (0.99, 1)])
def test_what_just_holds_is_not_listed(scenario, level, late):
    slo = PercentileSlo(measure="ttft_s", level=level, limit_s=2.0)
    assert not learn(scenario, clusters(TRIPLES, late), slos=((slo,), ()))
    assert learn(scenario, clusters(TRIPLES, late + 1), slos=((slo,), ()))


def test_the_guard_makes_more_of_them_late(scenario):
    rows = clusters(TRIPLES, 100)
    assert not learn(scenario, rows, slos=((PercentileSlo(measure="ttft_s", level=0.95, limit_s=3.0),), ()))
    assert learn(scenario, rows, slos=((PercentileSlo(measure="ttft_s", level=0.95, limit_s=3.0),), ()), guard=0.98)


def test_requests_that_were_routed_and_not_served_are_late(scenario):
    rows = clusters(TRIPLES, 0)[:90]
    assert learn(scenario, [*rows, *(not_served(CHAT, 1e6 + n) for n in range(10))])


def test_each_deployment_is_judged_by_itself(scenario):
    plan = plan_of({SLOW: 1, FAST: 1}, {"chat": {SLOW: 0.5, FAST: 0.5}, "long": {FAST: 1.0}})
    rows = [*clusters(TRIPLES, 25, deployment=1), *clusters(TRIPLES, 3, deployment=0, since_s=500.0)]
    assert list(learn(scenario, rows, plan=plan)) == [FAST_KEY]
    unused = plan_of({SLOW: 1, FAST: 1}, {"chat": {SLOW: 1.0}, "long": {SLOW: 1.0}})
    assert list(learn(scenario, clusters(TRIPLES, 25), plan=unused)) == [SLOW_KEY]


def test_the_slo_that_needs_most_is_told(scenario):
    """Both types are late at one deployment; the loads around the longs are those of their own groups."""
    rows = [*clusters(TRIPLES, 8), *clusters(TRIPLES, 25, kind=LONG, since_s=500.0)]
    need = learn(scenario, rows, slos=((TTFT,), (TTFT,)))[SLOW_KEY]
    assert (need.query_type, need.factor) == (LONG, pytest.approx(1.5))


def test_the_load_around_a_request_is_the_work_within_a_window_before_and_after(scenario):
    """Requests at 0, 1 and 2.5 windows: the middle one sees two of them, as the first does; the last is alone."""
    plan = plan_of({SLOW: 1}, {"chat": {SLOW: 1.0}})
    window_s = 4.0
    table = requests(*(served(CHAT, at_s, 1.0, 5.0, inputs=600, outputs=11) for at_s in (0.0, 4.0, 10.0)))
    step = scenario.step_cost(SLOW_KEY)
    here = np.ones(3, dtype=bool)
    load = local_load(scenario, table, here, SLOW_KEY, window_s)
    work_s = step.prefill_s_per_token * 600 + 10 * (
        step.decode_s_per_sequence + step.context_s_per_token * (600 + 11 / 2)
    )
    assert load == pytest.approx(np.array([2, 2, 1]) * work_s / (2 * window_s))
    assert window_of(
        scenario,
        sample_of(of_type([0.0], 600, 11), of_type([], 0, 0), horizon_s=1.0),
        plan.deployments[0].configuration,
        np.ones(2),
    ) == pytest.approx(1.5 * 0.05 + step.prefill_s_per_token * 600 + 10 * 0.05)
