"""Runs of more requests than a chunk, a batch or a log buffer holds, with the sizes that users get."""

from dataclasses import replace

import numpy as np
import pytest

from simulator.engine import Arrivals, EngineSettings, Workload, choose_engine
from simulator.engine.results import BATCH_REQUESTS, concatenate
from simulator.fleet.reality import Reality
from simulator.replica.outcome import Outcome
from simulator.ticks import TICKS_PER_S
from tests.engine_bench import LONG, Script, Story, batching, hold_together, offer, plan, seconds, static

pytestmark = pytest.mark.skipif(choose_engine().name != "compiled", reason="there is no compiled engine here")

TYPES = ("p", "q")
SPLIT = {"p": {"a": 0.6, "b": 0.4}, "q": {"b": 0.9}}
PLANS = [plan({"a": 3, "b": 2}, SPLIT, {"q": 0.1}), plan({"a": 2, "b": 5}, SPLIT, {"q": 0.1})]


def workload(size, gap, seed=0):
    rng = np.random.default_rng(seed)
    return Workload(
        types=TYPES,
        arrival_tick=np.cumsum(rng.integers(0, 2 * gap + 1, size)),
        query_type=rng.integers(0, 2, size).astype(np.int32),
        input_tokens=rng.integers(0, 30, size),
        output_tokens=rng.choice([0, 1, 2, 3, 4], size),
    )


FRAIL = Reality(failures_per_replica_h=3600 * TICKS_PER_S / 200_000)  # each replica lives 200,000 ticks


def story(engine, whole, spec, *, chunk, interval=LONG**2, reality=None, log=False, **kwargs):
    script, batches = Script(PLANS), []
    settings = EngineSettings(
        interval_s=seconds(interval), horizon_s=seconds(int(whole.arrival_tick[-1]) + 1), token_log=log, **kwargs
    )
    chunks = (whole.slice(k, k + chunk) for k in range(0, len(whole), chunk))
    arrivals = Arrivals(types=TYPES, chunks=chunks)
    subject = choose_engine(engine).engine(
        arrivals, script, lambda _: offer(spec, startup=500), settings, reality or Reality()
    )
    summary = subject.stream(batches.append)
    return Story(engine, summary, concatenate(batches, TYPES, summary.deployments), batches, script.seen, [])


def agreed(*args, **kwargs):
    stories = [story(engine, *args, **kwargs) for engine in ("reference", "compiled")]
    hold_together(*stories)
    return stories[0]


FAST = {
    "batching": batching(kv=200, budget=64, base=2, prefill=1, decode=1),
    "static": static(kv=200, slots=4, prefill=1, decode=2),
}


@pytest.mark.parametrize("discipline", FAST)
def test_nothing_but_arrivals_between_the_start_and_the_end(discipline):
    """The compiled engine runs far ahead of SimPy's clock, and batches leave meanwhile."""
    size = BATCH_REQUESTS + 5000
    result = agreed(workload(size, gap=12), FAST[discipline], chunk=size)
    assert [len(batch) for batch in result.batches] == [BATCH_REQUESTS, 5000]
    assert result.summary.count(Outcome.SERVED) > 0.9 * size
    assert len(result.seen) == 1


def test_many_steps_in_the_log():
    result = agreed(workload(20_000, gap=30), FAST["batching"], chunk=7_001, log=True)
    assert len(result.log.segments) > 2**15
    assert len(result.log.events) > 2**16


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chunk", "balancer"), [(10_007, "power_of_two"), (BATCH_REQUESTS, "least_outstanding_tokens"), (10**6, "random")]
)
@pytest.mark.parametrize("discipline", FAST)
def test_many_batches(discipline, chunk, balancer):
    """With a re-plan every 100,000 ticks, and failures."""
    size = 3 * BATCH_REQUESTS + 100
    whole = workload(size, gap=12, seed=chunk)
    result = agreed(whole, FAST[discipline], chunk=chunk, interval=100_000, reality=FRAIL, balancer=balancer)
    assert [len(batch) for batch in result.batches] == [BATCH_REQUESTS] * 3 + [100]
    assert len(result.summary.rentals) > 10


@pytest.mark.slow
def test_overload_keeps_everything_in_flight():
    size = BATCH_REQUESTS + 1000
    result = agreed(workload(size, gap=1), FAST["batching"], chunk=9_999, grace_s=seconds(1000))
    assert result.summary.count(Outcome.IN_FLIGHT) > size / 2


@pytest.mark.slow
def test_log_of_many_segments():
    result = agreed(workload(80_000, gap=30), FAST["batching"], chunk=7_001, interval=200_000, reality=FRAIL, log=True)
    assert len(result.log.segments) > 2**17


def test_memory_of_the_compiled_engine_does_not_grow_with_the_trace():
    """Half a million requests pass through slots for those in flight and a ledger for a batch or two."""
    size, chunk = 8 * BATCH_REQUESTS, 2**14
    parts = (workload(chunk, gap=30, seed=part) for part in range(size // chunk))
    end = 0

    def one_after_the_other():
        nonlocal end
        for part in parts:
            yield replace(part, arrival_tick=part.arrival_tick + end)
            end += int(part.arrival_tick[-1])

    lengths = []
    subject = choose_engine().engine(
        Arrivals(types=TYPES, chunks=one_after_the_other()),
        Script(PLANS),
        lambda _: offer(FAST["batching"]),
        EngineSettings(interval_s=1.0, horizon_s=seconds(size * 31)),
        Reality(),
    )
    summary = subject.stream(lambda batch: lengths.append(len(batch)))
    assert summary.arrived == sum(lengths) == size
    assert len(subject.state.slots) <= 2**12
    assert len(subject.state.ledger) <= 2 * BATCH_REQUESTS
    assert subject.kernel_events < 4 * size
