"""How fast the engines are: `python benchmarks/engine.py`, or `--only cells|week|replan|peer`.

Every figure is measured in a process of its own, so that its memory and its caches are its own. Requests per CPU second
are those of the engine: planning, reading and writing do not count, start-up and compilation neither. `best` is the
best of the repetitions, `median` their median: this machine may have other work to do.

- *cells*: both engines and the naive SimPy model over replicas and load, Poisson arrivals, exponential lengths with
  means of 1,000 input and 200 output tokens, round robin. The compiled engine runs two million requests; it is compared
  with the others on the shorter workload that they can run in reasonable time, the same for all three.
- *week*: 44.1 million requests over seven days, a day and night in the rate, tokens like those of the Azure trace of
  2023, 64 replicas, streamed; with and without a re-plan every five minutes that changes the fleet by one replica.
- *peer*: the Azure 2023 conversation trace on 8 replicas beside DynoSim, in one run (needs TOKENFLEET_DATA). Our step
  time is then DynoSim's default one as far as four coefficients can tell it (mean TTFT and E2E within 1 % at the
  trace's own speed), so that both do the same number of steps.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from simulator.catalog import kv_capacity_tokens, load_catalog  # noqa: E402
from simulator.delay import ConstantDelay, StepCost  # noqa: E402
from simulator.engine import Arrivals, EngineSettings, Observation, Workload, choose_engine  # noqa: E402
from simulator.engine.results import RunSummary  # noqa: E402
from simulator.fleet.reality import Reality  # noqa: E402
from simulator.fleet.replicas import ReplicaOffer  # noqa: E402
from simulator.moments import TokenMoments  # noqa: E402
from simulator.planning.plan import Deployment, Plan, PlanStatus, Route  # noqa: E402
from simulator.planning.problem import Configuration  # noqa: E402
from simulator.replica.batching import BATCHING  # noqa: E402
from simulator.replica.port import ReplicaSpec  # noqa: E402
from simulator.ticks import TICKS_PER_S, to_ticks_array  # noqa: E402

MODEL, TIER = "llama-3.1-8b", "h100-80-fp16"
TOKEN_BUDGET = 2048
REPLICAS, LOADS = (1, 16, 64, 256, 1024), (0.3, 0.7, 1.05)
MEAN_INPUT, MEAN_OUTPUT = 1000, 200
MANY_REQUESTS = 2_000_000
DYNOSIM_STEP = StepCost(base_s=5.75e-3, prefill_s_per_token=3e-5, decode_s_per_sequence=0.0, context_s_per_token=1.1e-7)
WEEK_REQUESTS, WEEK_S, WEEK_REPLICAS = 44_107_694, 7 * 86400.0, 64
MARKERS = ("<!-- figures: made by benchmarks/engine.py -->\n", "<!-- end of figures -->\n")


# -- what is run ----------------------------------------------------------------------------------------------------


def deployment_spec(cost: StepCost | None = None) -> tuple[ReplicaSpec, tuple[float, float, float, float]]:
    """One replica as the catalog and the constant delay model state it, and its step cost in seconds of whole ticks."""
    catalog = load_catalog()
    model, tier = catalog.models[MODEL], catalog.tiers[TIER]
    cost = cost or ConstantDelay().step_cost(model, tier, 1, 1)
    spec = ReplicaSpec(
        discipline=BATCHING,
        step=cost.ticks(),
        prefill_ticks_per_token=0,
        decode_ticks_per_token=0,
        kv_capacity_tokens=kv_capacity_tokens(model, tier, 1, 1, 0.9),
        token_budget=TOKEN_BUDGET,
    )
    step = spec.step
    ticks = (step.base, step.prefill_per_token, step.decode_per_sequence, step.context_per_token)
    return spec, tuple(coefficient / TICKS_PER_S for coefficient in ticks)  # type: ignore[return-value]


def work_s(inputs: np.ndarray, outputs: np.ndarray) -> float:
    """Mean replica seconds of one request."""
    step = StepCost(**dict(zip(StepCost.__slots__, deployment_spec()[1], strict=True)))
    return float(np.mean(step.planned_work_s(TokenMoments.of(inputs, outputs))))


def poisson_workload(requests: int, replicas: int, load: float) -> Workload:
    rng = np.random.default_rng(7)
    inputs = np.clip(np.rint(rng.exponential(MEAN_INPUT, requests)), 1, 16_000).astype(np.int64)
    outputs = np.clip(np.rint(rng.exponential(MEAN_OUTPUT, requests)), 1, 4_000).astype(np.int64)
    gaps = rng.exponential(work_s(inputs, outputs) / (load * replicas), requests)
    return Workload(
        types=("q",),
        arrival_tick=to_ticks_array(np.cumsum(gaps)),
        query_type=np.zeros(requests, dtype=np.int32),
        input_tokens=inputs,
        output_tokens=outputs,
    )


def week_chunks(requests: int) -> Iterator[Workload]:
    """The week in chunks: a thinned Poisson process with a daily wave, token pairs drawn from the synthetic hour."""
    from traces.synthetic.generate import synthesise
    from traces.synthetic.profile import load_profile

    pool = synthesise(load_profile("azure-2023"), duration_s=3600.0, rate_factor=10.0, seed=0)
    rng = np.random.default_rng(11)
    mean_gap_s, now_s, left = WEEK_S / WEEK_REQUESTS, 0.0, requests
    while left:
        size = min(left, 2**17)
        gaps = rng.exponential(mean_gap_s, size)
        wave = 1 + 0.6 * np.sin(2 * np.pi * (now_s + np.cumsum(gaps)) / 86400.0)
        arrival_s = now_s + np.cumsum(gaps / wave * 0.8)  # E[1 / wave] = 1.25: the mean rate stays
        now_s, left = float(arrival_s[-1]), left - size
        pick = rng.integers(0, len(pool), size)
        yield Workload(
            types=("q",),
            arrival_tick=to_ticks_array(arrival_s),
            query_type=np.zeros(size, dtype=np.int32),
            input_tokens=pool.input_tokens[pick].astype(np.int64),
            output_tokens=pool.output_tokens[pick].astype(np.int64),
        )


def plan(replicas: int) -> Plan:
    configuration = Configuration(model=MODEL, tier=TIER, tensor_parallel=1, pipeline_parallel=1)
    return Plan(
        problem="benchmark",
        policy="fixed",
        status=PlanStatus.FEASIBLE,
        cost_usd=0.0,
        bound_usd=None,
        seconds=None,
        deployments=(Deployment(configuration=configuration, replicas=replicas),),
        routing=(Route(query_type="q", model=MODEL, tier=TIER, share=1.0),),
        unmet=(),
    )


class Swinging:
    """One replica more, one replica less, at every re-plan; or always the same plan."""

    def __init__(self, replicas: int, swing: bool) -> None:
        self._plans = (plan(replicas), plan(replicas + 1)) if swing else (plan(replicas),) * 2
        self._calls = 0

    def replan(self, seen: Observation, incumbent: Plan | None) -> Plan:
        del seen, incumbent
        self._calls += 1
        return self._plans[(self._calls - 1) % 2]


def run_engine(
    name: str,
    arrivals: Workload | Arrivals,
    horizon_s: float,
    replicas: int,
    *,
    balancer: str = "round_robin",
    interval_s: float = 1e9,
    swing: bool = False,
    cost: StepCost | None = None,
) -> tuple[RunSummary, int]:
    """A run and the events that the engine itself processed."""
    spec = deployment_spec(cost)[0]
    engine = choose_engine(name).engine(
        arrivals,
        Swinging(replicas, swing),
        lambda _: ReplicaOffer(spec=spec, startup_ticks=60 * TICKS_PER_S, gpus=1, price_usd_per_h=1.0),
        EngineSettings(interval_s=interval_s, horizon_s=horizon_s, balancer=balancer),
        Reality(),
    )
    rows = 0

    def count(batch: Any) -> None:
        nonlocal rows
        rows += len(batch)

    summary = engine.stream(count)
    assert rows == summary.arrived
    return summary, getattr(engine, "kernel_events", summary.events)


def rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# -- one measurement, in a process of its own -----------------------------------------------------------------------


def measure_cell(engine: str, replicas: int, load: float, requests: int, repetitions: int) -> dict[str, Any]:
    workload = poisson_workload(requests, replicas, load)
    horizon_s = float(workload.arrival_tick[-1]) / TICKS_PER_S + 1
    if engine == "naive":
        return {"engine": engine, "replicas": replicas, "load": load, **_measure_naive(workload, replicas, repetitions)}
    seconds, events = [], 0
    for _ in range(repetitions):
        summary, events = run_engine(engine, workload, horizon_s, replicas)
        seconds.append(summary.engine_cpu_s)
    return {
        "engine": engine,
        "replicas": replicas,
        "load": load,
        "requests": requests,
        "best_per_s": requests / min(seconds),
        "median_per_s": requests / statistics.median(seconds),
        "events_per_request": events / requests,
        "rss_mb": rss_mb(),
    }


def _measure_naive(workload: Workload, replicas: int, repetitions: int) -> dict[str, Any]:
    from benchmarks.naive import run_naive

    spec, step = deployment_spec()
    seconds = []
    for _ in range(repetitions):
        started = time.process_time()
        run_naive(
            workload.arrival_tick / TICKS_PER_S,
            workload.input_tokens,
            workload.output_tokens,
            replicas=replicas,
            step=step,
            token_budget=TOKEN_BUDGET,
            kv_capacity_tokens=spec.kv_capacity_tokens,
        )
        seconds.append(time.process_time() - started)
    requests = len(workload)
    best, median = requests / min(seconds), requests / statistics.median(seconds)
    return {"requests": requests, "best_per_s": best, "median_per_s": median, "rss_mb": rss_mb()}


def measure_week(requests: int, interval_s: float, swing: bool) -> dict[str, Any]:
    arrivals = Arrivals(types=("q",), chunks=week_chunks(requests))
    started, cpu_started = time.perf_counter(), time.process_time()
    summary, events = run_engine(
        "compiled",
        arrivals,
        WEEK_S * 1.01 * max(requests / WEEK_REQUESTS, 0.01),
        WEEK_REPLICAS,
        interval_s=interval_s,
        swing=swing,
    )
    return {
        "requests": summary.arrived,
        "replans": len(summary.plans) - 1,
        "interval_s": interval_s,
        "engine_cpu_s": summary.engine_cpu_s,
        "total_cpu_s": time.process_time() - cpu_started,
        "wall_s": time.perf_counter() - started,
        "events_per_request": events / summary.arrived,
        "rss_mb": rss_mb(),
    }


def measure_conv(engine: str, speedup: float) -> dict[str, Any]:
    """The conversation trace on 8 replicas; as DynoSim is run, every request is served."""
    from traces.formats.registry import read_trace

    trace = read_trace(conv_trace()).trace
    workload = Workload(
        types=("q",),
        arrival_tick=to_ticks_array(trace.arrival_s / speedup),
        query_type=np.zeros(len(trace), dtype=np.int32),
        input_tokens=trace.input_tokens.astype(np.int64),
        output_tokens=trace.output_tokens.astype(np.int64),
    )
    horizon_s = trace.span_s / speedup + 1
    run_engine(engine, workload.slice(0, 100), horizon_s, 8, cost=DYNOSIM_STEP)
    walls, cpus = [], []
    for _ in range(3):
        started = time.perf_counter()
        summary, _ = run_engine(engine, workload, horizon_s, 8, cost=DYNOSIM_STEP)
        walls.append(time.perf_counter() - started)
        cpus.append(summary.engine_cpu_s)
    return {
        "simulator": f"tokenfleet, {engine}",
        "speedup": speedup,
        "requests": summary.arrived,
        "per_wall_s": summary.arrived / statistics.median(walls),
        "per_cpu_s": summary.arrived / statistics.median(cpus),
        "rss_mb": rss_mb(),
    }


def conv_trace() -> Path:
    return Path(os.environ["TOKENFLEET_DATA"]) / "traces" / "AzureLLMInferenceTrace_conv.csv"


def in_child(what: str, **arguments: Any) -> dict[str, Any]:
    """Call `measure_<what>` in a process of its own."""
    command = [sys.executable, __file__, "--child", what, json.dumps(arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{what} {arguments} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"  {what}: {json.dumps(result)}", file=sys.stderr, flush=True)
    return result


# -- the tables -----------------------------------------------------------------------------------------------------


def machine() -> str:
    cpu = platform.processor() or "unknown processor"
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    return f"{cpu}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def cells(repetitions: int) -> list[str]:
    rows = []
    for replicas in REPLICAS:
        for load in LOADS:
            cell: dict[str, Any] = {"replicas": replicas, "load": load}
            fast = in_child("cell", engine="compiled", requests=MANY_REQUESTS, repetitions=repetitions, **cell)
            few = max(12_000, min(250 * replicas, 64_000))
            same, slow, naive = (
                in_child("cell", engine=name, requests=few, repetitions=repetitions if few < 50_000 else 2, **cell)
                for name in ("compiled", "reference", "naive")
            )
            rows.append(
                f"| {replicas:,} | {load:g} | {fast['best_per_s'] / 1e6:.2f} | {fast['median_per_s'] / 1e6:.2f} "
                f"| {fast['events_per_request']:.2f} | {fast['rss_mb']:,.0f} | {few:,} "
                f"| {slow['best_per_s'] / 1e3:.0f} | {naive['best_per_s'] / 1e3:.1f} "
                f"| {same['best_per_s'] / slow['best_per_s']:,.0f} | {same['best_per_s'] / naive['best_per_s']:,.0f} |"
            )
    return [
        "| replicas | load | compiled, best [M/s] | median [M/s] | kernel events per request | RSS [MB] "
        "| requests compared | reference [k/s] | naive [k/s] | compiled / reference | compiled / naive |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
        *rows,
    ]


def week() -> list[str]:
    kinds = {"one plan": (1e9, False), "re-plan every 5 min": (300.0, True)}
    found: dict[str, list[dict[str, Any]]] = {label: [] for label in kinds}
    for _ in range(3):  # by turns, because the machine is not equally fast all the time
        for label, (interval_s, swing) in kinds.items():
            found[label].append(in_child("week", requests=WEEK_REQUESTS, interval_s=interval_s, swing=swing))
    rows = []
    for label, runs in found.items():
        seconds = sorted(run["engine_cpu_s"] for run in runs)
        total = statistics.median(run["total_cpu_s"] for run in runs)
        rows.append(
            f"| {label} | {runs[0]['requests']:,} | {runs[0]['replans']:,} | {statistics.median(seconds):.1f} "
            f"({seconds[0]:.1f} to {seconds[-1]:.1f}) | {total:.1f} | {runs[0]['events_per_request']:.2f} "
            f"| {max(run['rss_mb'] for run in runs):,.0f} |"
        )
    return [
        "| 64 replicas, one week | requests | changes of plan | engine [CPU s], median of 3 | with making the trace "
        "[CPU s] | kernel events per request | RSS [MB] |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *rows,
    ]


def peer() -> list[str]:
    from benchmarks.dynosim import measure

    found = []
    for speedup in (1.0, 10.0):
        found += [in_child("conv", engine=name, speedup=speedup) for name in ("compiled", "reference")]
        found.append(measure(conv_trace(), speedup))
    return [
        "| simulator | arrivals | requests | per wall second | per CPU second | RSS [MB] |",
        "|---|---:|---:|---:|---:|---:|",
        *(
            f"| {row['simulator']} | x{row['speedup']:g} | {row['requests']:,} | {row['per_wall_s']:,.0f} "
            f"| {row['per_cpu_s']:,.0f} | {row['rss_mb']:,.0f} |"
            for row in found
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["cells", "week", "peer"], action="append")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--markdown", type=Path, help="put the tables between the markers of this file")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        what, options = arguments.child
        print(json.dumps(globals()[f"measure_{what}"](**json.loads(options))))
        return
    parts = arguments.only or ["cells", "week", *(["peer"] if "TOKENFLEET_DATA" in os.environ else [])]
    lines = [f"Machine: {machine()}; {time.strftime('%Y-%m-%d')}.", ""]
    if "cells" in parts:
        lines += [*cells(arguments.repetitions), ""]
    if "week" in parts:
        lines += [*week(), ""]
    if "peer" in parts:
        lines += [*peer(), ""]
    text = "\n".join(lines)
    print(text)
    if arguments.markdown:
        page = arguments.markdown.read_text("utf-8")
        before, _, rest = page.partition(MARKERS[0])
        _, _, after = rest.partition(MARKERS[1])
        arguments.markdown.write_text(before + MARKERS[0] + "\n" + text + "\n" + MARKERS[1] + after, "utf-8")


if __name__ == "__main__":
    main()
