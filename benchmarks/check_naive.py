"""Check that the naive model and the reference engine give the same times: `python -m benchmarks.check_naive`.

A model that is compared in speed must do the same work. Step coefficients are whole ticks, so that both count alike.
"""

import numpy as np

from benchmarks.naive import FloatArray, IntArray, run_naive
from simulator.catalog.configuration import Configuration
from simulator.delay.port import StepCost, StepTicks
from simulator.engine import EngineSettings, Observation, ReferenceEngine, Workload
from simulator.fleet.reality import Reality
from simulator.fleet.replicas import ReplicaOffer
from simulator.planning.plan import Deployment, Plan, PlanStatus, Route
from simulator.replica.batching import BATCHING
from simulator.replica.outcome import Outcome
from simulator.replica.port import ReplicaSpec
from simulator.ticks import TICKS_PER_S, to_ticks_array

TOLERANCE_S = 1e-6
GRACE_S = 1e5
STEP = StepCost(base_s=6e-3, prefill_s_per_token=3e-5, decode_s_per_sequence=4e-5, context_s_per_token=1.2e-7).ticks()


def check_naive(requests: int = 2000, seed: int = 0) -> float:
    """Replay random requests with both; return the largest difference of any time, in seconds.

    Three fleets: one overloaded replica, where the token budget cuts prompts into chunks and the queue builds up; four
    with bursts of simultaneous arrivals; one whose small KV cache blocks the head of the queue and preempts.

    Raises
    ------
    AssertionError
        If a request was not served or a time differs by more than `TOLERANCE_S`.
    """
    rng = np.random.default_rng(seed)
    input_tokens = rng.integers(1, 3000, requests)
    output_tokens = rng.integers(1, 400, requests)
    arrival_s = np.cumsum(rng.exponential(1 / 12, requests))
    bursts_s = np.sort(rng.choice(arrival_s / 4, requests))
    return max(
        _difference_s(arrival_s, input_tokens, output_tokens, replicas=1, token_budget=512),
        _difference_s(bursts_s, input_tokens, output_tokens, replicas=4),
        _difference_s(arrival_s, input_tokens, output_tokens, replicas=1, kv_capacity_tokens=6000),
    )


def _difference_s(
    arrival_s: FloatArray,
    input_tokens: IntArray,
    output_tokens: IntArray,
    *,
    replicas: int,
    token_budget: int = 2048,
    kv_capacity_tokens: int = 10**9,
) -> float:
    spec = ReplicaSpec(
        discipline=BATCHING,
        step=STEP,
        prefill_ticks_per_token=0,
        decode_ticks_per_token=0,
        kv_capacity_tokens=kv_capacity_tokens,
        token_budget=token_budget,
    )
    expected = _reference(arrival_s, input_tokens, output_tokens, replicas, spec)
    found = run_naive(
        arrival_s, input_tokens, output_tokens, replicas, _seconds(STEP), token_budget, kv_capacity_tokens
    )
    worst_s = max(float(np.abs(a - b).max()) for a, b in zip(expected, found, strict=True))
    assert worst_s <= TOLERANCE_S, f"naive model and reference engine differ by {worst_s:g} s"
    return worst_s


def _seconds(step: StepTicks) -> tuple[float, float, float, float]:
    base_s, prefill_s, decode_s, context_s = (
        ticks / TICKS_PER_S
        for ticks in (step.base, step.prefill_per_token, step.decode_per_sequence, step.context_per_token)
    )
    return base_s, prefill_s, decode_s, context_s


def _reference(
    arrival_s: FloatArray, input_tokens: IntArray, output_tokens: IntArray, replicas: int, spec: ReplicaSpec
) -> tuple[FloatArray, FloatArray]:
    """Times of first token and finish by the reference engine, one deployment, never re-planned."""
    workload = Workload(
        types=("q",),
        arrival_tick=to_ticks_array(arrival_s),
        query_type=np.zeros(len(arrival_s), dtype=np.int32),
        input_tokens=input_tokens.copy(),
        output_tokens=output_tokens.copy(),
    )
    horizon_s = float(arrival_s[-1]) + 1.0
    result = ReferenceEngine(
        workload,
        _OnePlan(replicas),
        lambda _: ReplicaOffer(spec=spec, startup_ticks=0, gpus=1, price_usd_per_h=1.0),
        EngineSettings(interval_s=horizon_s, horizon_s=horizon_s, grace_s=GRACE_S, balancer="round_robin"),
        Reality(),
    ).run()
    assert result.count(Outcome.SERVED) == len(arrival_s), "the reference engine did not serve all requests"
    return result.requests.first_token_tick / TICKS_PER_S, result.requests.finish_tick / TICKS_PER_S


class _OnePlan:
    """A controller that never changes its mind."""

    def __init__(self, replicas: int) -> None:
        configuration = Configuration(model="m", tier="t", tensor_parallel=1, pipeline_parallel=1)
        self._plan = Plan(
            problem="benchmark",
            policy="fixed",
            status=PlanStatus.FEASIBLE,
            cost_usd=0.0,
            bound_usd=None,
            seconds=None,
            deployments=(Deployment(configuration=configuration, replicas=replicas),),
            routing=(Route(query_type="q", model="m", tier="t", share=1.0),),
            unmet=(),
        )

    def replan(self, seen: Observation, incumbent: Plan | None) -> Plan:
        del seen, incumbent
        return self._plan


if __name__ == "__main__":
    print(f"naive model and reference engine differ by at most {check_naive():.1e} s")
