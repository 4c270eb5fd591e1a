"""The Azure traces through both engines: the same to the bit, with re-plans every minute, failures and a full KV cache.

Ten minutes of the traces for every change; the whole hour at night.
"""

from itertools import cycle, islice

import numpy as np
import pytest

from simulator.catalog import load_catalog
from simulator.catalog.configuration import Configuration
from simulator.delay import ConstantDelay
from simulator.engine import EngineSettings, Workload, choose_engine
from simulator.engine.results import concatenate
from simulator.fleet.reality import OnFailure, Reality
from simulator.fleet.world import World
from simulator.planning.plan import Deployment, Plan, PlanStatus, Route
from simulator.replica.batching import BATCHING
from simulator.replica.outcome import Outcome
from simulator.replica.static import STATIC
from simulator.ticks import to_ticks_array
from simulator.workload import merge_traces
from tests.engine_bench import Script, Story, hold_together
from traces.formats.registry import read_trace

pytestmark = pytest.mark.skipif(choose_engine().name != "compiled", reason="there is no compiled engine here")

TRACES = ("AzureLLMInferenceTrace_conv.csv", "AzureLLMInferenceTrace_code.csv")
SMALL = Configuration(model="llama-3.1-8b", tier="h100-80-fp16", tensor_parallel=1, pipeline_parallel=1)
LARGE = Configuration(model="llama-3.1-70b", tier="h100-80-fp8", tensor_parallel=4, pipeline_parallel=1)
CATALOG = load_catalog()


def plan(small, large, conv_unmet=0.0):
    """Code goes to the small model; of conv an eighth goes to the large one, and a share nowhere."""
    shares = {("conv", SMALL): 0.875 - conv_unmet, ("conv", LARGE): 0.125, ("code", SMALL): 1.0}
    if not large:
        shares = {("conv", SMALL): 1 - conv_unmet, ("code", SMALL): 1.0}
    return Plan(
        problem="by hand",
        policy="by hand",
        status=PlanStatus.FEASIBLE,
        cost_usd=0.0,
        bound_usd=None,
        seconds=None,
        deployments=tuple(
            Deployment(configuration=configuration, replicas=count)
            for configuration, count in ((SMALL, small), (LARGE, large))
            if count
        ),
        routing=tuple(
            Route(query_type=name, model=configuration.model, tier=configuration.tier, share=share)
            for (name, configuration), share in shares.items()
        ),
        unmet=(("conv", conv_unmet),) if conv_unmet else (),
    )


GROWING_AND_SHRINKING = [plan(3, 1), plan(4, 1), plan(2, 2, 0.1), plan(5, 0), plan(3, 1, 0.05), plan(1, 1)]


def read(folder, minutes):
    trace = merge_traces([read_trace(folder / "traces" / name, source=name[-8:-4]).trace for name in TRACES])
    count = int(np.searchsorted(trace.arrival_s, 60 * minutes))
    return Workload(
        types=trace.sources,
        arrival_tick=to_ticks_array(trace.arrival_s[:count]),
        query_type=trace.source[:count],
        input_tokens=trace.input_tokens[:count].astype(np.int64),
        output_tokens=trace.output_tokens[:count].astype(np.int64),
    )


def story(engine, workload, minutes, plans, world, reality, balancer, log):
    script, batches = Script(plans), []
    settings = EngineSettings(
        interval_s=60.0, horizon_s=60.0 * minutes, grace_s=45.0, balancer=balancer, seed=3, token_log=log
    )
    subject = choose_engine(engine).engine(workload, script, world.offer, settings, reality)
    summary = subject.stream(batches.append)
    requests = concatenate(batches, summary.types, summary.deployments)
    return Story(engine, summary, requests, batches, script.seen, [])


CASES = {
    "re-plans": {"balancer": "least_outstanding_tokens"},
    "re-plans and failures": {
        "balancer": "power_of_two",
        "reality": Reality(failures_per_replica_h=30.0, on_failure=OnFailure.REQUEUE, delay_factor=1.1),
    },
    "full KV cache and failures": {
        "balancer": "round_robin",
        "reality": Reality(failures_per_replica_h=10.0, on_failure=OnFailure.FAIL),
        "memory_utilisation": 0.24,
    },
    "static": {"balancer": "least_outstanding_requests", "discipline": STATIC},
}


def world_of(case, reality):
    arguments = {
        "catalog": CATALOG,
        "delay_model": ConstantDelay(),
        "discipline": BATCHING,
        "reality": reality,
        "provisioning_s": 20.0,
        "load_gb_per_s": 2.0,
        "token_budget": 512,
    }
    return World(**arguments | case)


def run_case(case, workload, minutes, log):
    case = dict(case)
    reality, balancer = case.pop("reality", Reality()), case.pop("balancer")
    world = world_of(case, reality)
    plans = list(islice(cycle(GROWING_AND_SHRINKING), minutes))
    stories = [
        story(engine, workload, minutes, plans, world, reality, balancer, log) for engine in ("reference", "compiled")
    ]
    hold_together(*stories)
    return stories[0]


def check_that_much_happened(name, summary, requests):
    full = name == "full KV cache and failures"
    assert len(summary.plans) > 3
    assert summary.count(Outcome.SERVED) > 0.5 * len(requests)
    assert summary.count(Outcome.REJECTED_UNMET) > 0
    assert (requests.preemptions.sum() > 20) == full
    assert (summary.count(Outcome.FAILED) > 0) == full
    assert set(requests.deployment[requests.served].tolist()) == {0, 1}


@pytest.mark.parametrize("name", CASES)
def test_ten_minutes_of_the_azure_traces(data_dir, name):
    workload = read(data_dir, 10)
    result = run_case(CASES[name], workload, 10, log=False)
    assert len(workload) > 1000
    check_that_much_happened(name, result.summary, result.requests)


def test_three_minutes_with_every_token(data_dir):
    result = run_case(CASES["full KV cache and failures"], read(data_dir, 3), 3, log=True)
    assert len(result.log.events) > 3000


@pytest.mark.parametrize("replicas", [1, 4, 16])
def test_a_request_costs_the_kernel_few_events(data_dir, replicas):
    """It arrives, is admitted, decodes, finishes: four, and two more where its prompt takes several steps."""
    workload = read(data_dir, 10)
    world = world_of({}, Reality())
    settings = EngineSettings(interval_s=1e6, horizon_s=600.0)
    subject = choose_engine().engine(workload, Script([plan(replicas, 1)]), world.offer, settings, Reality())
    subject.run()
    chunked = int((workload.input_tokens > world.token_budget).sum())
    assert subject.kernel_events <= 4 * len(workload) + 2 * chunked


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_hour_of_the_azure_traces(data_dir, name):
    workload = read(data_dir, 60)
    result = run_case(CASES[name], workload, 60, log=False)
    assert len(workload) > 25_000
    check_that_much_happened(name, result.summary, result.requests)
