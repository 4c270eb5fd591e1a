"""What tests of percentile SLOs and of verified plans share: a small scenario, arrivals and request tables by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from experiments.replay.run import workload_of
from experiments.scenario.scenario import Scenario, load_scenario
from experiments.verify.draws import Draw
from experiments.verify.sample import OfType, Sample
from simulator.catalog.configuration import Configuration, DeploymentKey
from simulator.engine.results import RequestTable
from simulator.planning.plan import Deployment, Plan, PlanStatus, Route
from simulator.replica.outcome import Outcome
from simulator.replica.port import NEVER
from simulator.ticks import TICKS_PER_S
from simulator.workload import Trace

MODEL, FAST, SLOW = "llama-3.1-8b", "h100-80-fp8", "l40s-fp8"

SMALL = """
format = "tokenfleet-scenario/1"
name = "small"
discipline = "batching"
capacity = "batching"

[catalog]
models = ["llama-3.1-8b"]
tiers = ["l40s-fp8", "h100-80-fp8"]
tensor_parallel = [1]

[limits]
budget_usd_per_h = 30.0
max_replicas = 6

[engine]
token_budget = 512

[synthetic]
profile = "expected"
duration_s = 300.0

[[query_types]]
name = "chat"
expected = { arrival_per_h = 7200, input_tokens = 600, output_tokens = 120 }
input_tokens = { max = 1023 }
delay_slo_s = 8.0
ttft_slo_s = 1.0
tpot_slo_s = 0.05
error_slo = 1.0
delay_penalty_usd_per_query_s = 1e-6
unmet_penalty_usd_per_query = 0.02

[[query_types]]
name = "long"
expected = { arrival_per_h = 3600, input_tokens = 2500, output_tokens = 60 }
input_tokens = { min = 1024 }
delay_slo_s = 12.0
ttft_slo_s = 3.0
tpot_slo_s = 0.05
error_slo = 1.0
delay_penalty_usd_per_query_s = 1e-6
unmet_penalty_usd_per_query = 0.02
"""


def small(folder: Path, *changes: tuple[str, str]) -> Scenario:
    """A scenario of two query types and two configurations of one model; each change replaces a text everywhere."""
    return load_scenario(str(write_small(folder, *changes)))


def write_small(folder: Path, *changes: tuple[str, str]) -> Path:
    text = SMALL
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    path = folder / "small.toml"
    path.write_text(text, encoding="utf-8")
    return path


def configuration(tier: str, tpot_target_s: float | None = 0.05) -> Configuration:
    return Configuration(model=MODEL, tier=tier, tensor_parallel=1, pipeline_parallel=1, tpot_target_s=tpot_target_s)


def plan_of(replicas: dict[str, int], shares: dict[str, dict[str, float]]) -> Plan:
    """Replicas by tier, and by query type the shares of each tier."""
    return Plan(
        problem="by hand",
        policy="by hand",
        status=PlanStatus.FEASIBLE,
        cost_usd=1.0,
        bound_usd=None,
        seconds=0.0,
        deployments=tuple(
            Deployment(configuration=configuration(tier), replicas=count) for tier, count in replicas.items()
        ),
        routing=tuple(
            Route(query_type=name, model=MODEL, tier=tier, share=share)
            for name, own in shares.items()
            for tier, share in own.items()
        ),
        unmet=(),
    )


def trace_of(arrival_s, inputs, outputs, sources=("any",), source=None) -> Trace:
    count = len(arrival_s)
    return Trace(
        sources=sources,
        arrival_s=np.asarray(arrival_s, dtype=np.float64),
        source=np.zeros(count, dtype=np.int32) if source is None else np.asarray(source, dtype=np.int32),
        input_tokens=np.broadcast_to(inputs, count).astype(np.int32),
        output_tokens=np.broadcast_to(outputs, count).astype(np.int32),
    )


def draw_of(scenario: Scenario, trace: Trace, horizon_s: float, seed: int = 0) -> Draw:
    return Draw(name="by hand", workload=workload_of(scenario, trace), horizon_s=horizon_s, seed=seed)


def of_type(arrival_s, inputs, outputs) -> OfType:
    arrival_s = np.asarray(arrival_s, dtype=np.float64)
    h, f = (np.broadcast_to(np.asarray(column, dtype=np.float64), len(arrival_s)) for column in (inputs, outputs))
    return OfType(arrival_s=arrival_s, inputs=h, outputs=f)


def sample_of(*types: OfType, horizon_s: float) -> Sample:
    return Sample(types=types, horizon_s=horizon_s)


NOTHING = of_type([], 0, 0)

_KEYS = tuple(DeploymentKey(MODEL, tier, 1, 1) for tier in (SLOW, FAST))


def requests(*rows, types=("chat", "long")) -> RequestTable:
    """Rows of (type, arrival, ttft, e2e, input, output, outcome, deployment); times in s, None is never.

    Deployment 0 is on the slow tier, 1 on the fast one.
    """
    columns = list(zip(*rows, strict=True))
    arrival_s = columns[1]

    def ticks(times):
        return np.array(
            [NEVER if t is None else round((a + t) * TICKS_PER_S) for a, t in zip(arrival_s, times, strict=True)],
            dtype=np.int64,
        )

    return RequestTable(
        types=types,
        deployments=_KEYS,
        query_type=np.array(columns[0], dtype=np.int32),
        arrival_tick=ticks([0.0] * len(rows)),
        first_token_tick=ticks(columns[2]),
        finish_tick=ticks(columns[3]),
        input_tokens=np.array(columns[4], dtype=np.int64),
        output_tokens=np.array(columns[5], dtype=np.int64),
        outcome=np.array(columns[6], dtype=np.uint8),
        deployment=np.array(columns[7], dtype=np.int16),
        replica=np.zeros(len(rows), dtype=np.int32),
        start_tick=ticks([0.0] * len(rows)),
        preemptions=np.zeros(len(rows), dtype=np.int32),
    )


def served(kind, arrival_s, ttft_s, e2e_s, inputs=600, outputs=11, deployment=0):
    """A row of `requests`."""
    return kind, arrival_s, ttft_s, e2e_s, inputs, outputs, Outcome.SERVED, deployment


def not_served(kind, arrival_s, outcome=Outcome.REJECTED_UNMET, deployment=0):
    return kind, arrival_s, None, None, 600, 11, outcome, deployment


def with_target(c: Configuration, tpot_target_s: float) -> Configuration:
    return replace(c, tpot_target_s=tpot_target_s)
