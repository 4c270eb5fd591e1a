"""Queues with known answers: the `static` discipline against M/M/1, M/D/1, M/M/c and the bounds of c single queues.

The mean service time is one second. Each estimate comes from independent replications with fixed seeds. Theory has to
lie within the 99.9 % confidence interval, and the interval has to be so narrow that service 3 % too slow would show.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import exp, factorial

import numpy as np
import pytest
from scipy import stats

from simulator.engine import EngineSettings, Workload, choose_engine
from simulator.fleet.reality import Reality
from simulator.rng import stream
from simulator.ticks import TICKS_PER_S, to_ticks_array
from tests.engine_bench import Script, offer, plan, static

REQUESTS = 5000  # of one replication
WARM_UP = 500
CONFIDENCE = 0.999
TOKENS_PER_S = 2**20


def exponential(rng, size):
    return -np.log1p(-rng.random(size))


def constant(rng, size):
    return np.ones(size)


@dataclass(frozen=True)
class Sample:
    """Waits for service [s], shape (replications, requests), and the excess of the mean service and interarrival times.

    Both excesses are zero in expectation, and the waits go with them: regressing on them makes the interval narrower.
    """

    wait_s: np.ndarray
    excess: np.ndarray  # shape (replications, 2)

    def interval(self, statistic: Callable = np.mean) -> tuple[float, float]:
        """Estimate of a statistic of the waits, and half the width of its confidence interval."""
        values = np.array([statistic(row) for row in self.wait_s])
        controls = self.excess[:, np.ptp(self.excess, axis=0) > 0]
        design = np.column_stack([np.ones(len(values)), controls])
        inverse = np.linalg.inv(design.T @ design)
        beta = inverse @ design.T @ values
        degrees = len(values) - design.shape[1]
        variance = np.sum((values - design @ beta) ** 2) / degrees * inverse[0, 0]
        return beta[0], stats.t.ppf((1 + CONFIDENCE) / 2, degrees) * np.sqrt(variance)


@cache
def sample(load, service=exponential, slots=1, replicas=1, balancer="least_outstanding_requests", replications=40):
    """Simulate; `load` is that of one server."""
    waits, excess = [], []
    for seed in range(replications):
        rng = stream(seed, "queueing theory")
        gap_s = exponential(rng, REQUESTS) / (load * slots * replicas)
        service_s = service(rng, REQUESTS)
        arrival_s = np.cumsum(gap_s)
        arrival_tick = to_ticks_array(arrival_s)
        workload = Workload(
            types=("q",),
            arrival_tick=arrival_tick,
            query_type=np.zeros(REQUESTS, dtype=np.int32),
            input_tokens=np.zeros(REQUESTS, dtype=np.int64),
            output_tokens=np.rint(service_s * TOKENS_PER_S).astype(np.int64),
        )
        settings = EngineSettings(
            interval_s=1e6, horizon_s=arrival_s[-1] + 1, grace_s=1e6, balancer=balancer, seed=seed
        )
        spec = static(slots=slots, decode=TICKS_PER_S // TOKENS_PER_S)
        engine = choose_engine().engine(
            workload, Script([plan({"a": replicas})]), lambda _, spec=spec: offer(spec), settings, Reality()
        )
        table = engine.run().requests
        assert table.served.all()
        waits.append((table.start_tick - arrival_tick)[WARM_UP:] / TICKS_PER_S)
        excess.append((service_s[WARM_UP:].mean() - 1, gap_s[WARM_UP:].mean() * load * slots * replicas - 1))
    return Sample(np.array(waits), np.array(excess))


def check(interval, theory, load):
    """`theory` is a function of the load and of the mean service time."""
    estimate, half_width = interval
    expected = theory(load, 1.0)
    assert half_width < abs(theory(1.03 * load, 1.03) - expected) / 2
    assert estimate == pytest.approx(expected, abs=half_width)


def mmc_wait(servers, load, service_s=1.0):
    """Mean wait of M/M/c by the Erlang C formula."""
    offered = servers * load
    last = offered**servers / factorial(servers) / (1 - load)
    waits = last / (sum(offered**k / factorial(k) for k in range(servers)) + last)
    return waits * service_s / (servers * (1 - load))


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_mean_wait_of_mm1(load):
    check(sample(load).interval(), lambda load, service_s: load / (1 - load) * service_s, load)


@pytest.mark.parametrize("load", [0.5, 0.8])
@pytest.mark.parametrize("wait_s", [0.0, 1.0, 3.0])
def test_wait_of_mm1_has_an_exponential_tail(load, wait_s):
    check(
        sample(load).interval(lambda row: np.mean(row > wait_s)),
        lambda load, service_s: load * exp(-(1 - load) / service_s * wait_s),
        load,
    )


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_mean_wait_of_md1_is_half_of_that(load):
    """Pollaczek-Khinchine without variation of service."""
    check(
        sample(load, constant, replications=30).interval(),
        lambda load, service_s: load / (1 - load) * service_s / 2,
        load,
    )


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_mean_wait_of_three_slots_is_that_of_mm3(load):
    check(sample(load, slots=3).interval(), lambda load, service_s: mmc_wait(3, load, service_s), load)


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_three_replicas_lie_between_a_shared_queue_and_three_separate_ones(load):
    wait_s, half_width = sample(load, replicas=3, replications=40).interval()
    assert mmc_wait(3, load) < wait_s - half_width
    assert wait_s + half_width < mmc_wait(1, load)


def test_random_choice_makes_three_separate_queues():
    wait_s, half_width = sample(0.5, replicas=3, balancer="random", replications=15).interval()
    assert wait_s == pytest.approx(mmc_wait(1, 0.5), abs=half_width)
    assert half_width < 0.2
