"""Measured closed-loop runs of real engines, replayed.

Protocol, which the measurements do not state and which is therefore assumed, and part of every result: all clients
send at once, each keeps one request in flight until `REQUESTS_PER_CLIENT` x clients are answered, and the figure of a
run is the mean over its requests. Where a row states a version of its engine, all requests are equal; where it states
none, their lengths are uniform between `RANGE` and one of the nominal ones, as in the public benchmark that such rows
resemble. TTFT gets what a request spends outside the engine (`ServingEngine.ttft_s`).
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from experiments.calibrate.names import Names
from simulator.catalog import Catalog, LlmModel, Scheduling, ServingEngine, Tier, kv_capacity_tokens
from simulator.delay import RooflineDelay
from simulator.delay.port import StepTicks
from simulator.delay.roofline import BYTES, kv_bytes
from simulator.errors import InputError
from simulator.replica.batching import BATCHING
from simulator.replica.closed_loop import Schedule, one_prompt_a_step, schedule, serve, waves
from simulator.replica.extension import Admission
from simulator.replica.port import ReplicaSpec
from simulator.validation import closest

REQUESTS_PER_CLIENT = 10
RANGE = 0.8
COLUMNS = (
    "backend",
    "model",
    "gpu",
    "precision",
    "input_tokens",
    "output_tokens",
    "concurrency",
    "tp",
    "ttft_ms",
    "tpot_ms",
)
DEFAULT_PRECISION = "bf16"  # where a row states none
MOST_PROBLEMS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One measured run: names as its file writes them, and the catalog's models and tiers that they stand for."""

    line: int
    backend: str
    model_name: str
    gpu: str
    precision: str
    model: LlmModel
    tier: Tier
    tensor_parallel: int
    pipeline_parallel: int
    input_tokens: int
    output_tokens: int
    concurrency: int
    equal_requests: bool
    ttft_s: float
    tpot_s: float

    def lengths(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Prompt and answer tokens of each request; the same in every call."""
        requests = REQUESTS_PER_CLIENT * self.concurrency
        draws = np.random.default_rng(self.line).random((2, requests))
        ratio = np.ones_like(draws) if self.equal_requests else RANGE + (1 - RANGE) * draws
        found = np.maximum(1, np.round(ratio * [[self.input_tokens], [self.output_tokens]])).astype(np.int64)
        return found[0], found[1]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A run that cannot be replayed, and why."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A measured run with its simulated TPOT and TTFT."""

    run: Run
    ttft_s: float
    tpot_s: float
    preemptions: int

    @property
    def ttft_error(self) -> float:
        return self.ttft_s / self.run.ttft_s - 1

    @property
    def tpot_error(self) -> float:
        return self.tpot_s / self.run.tpot_s - 1


def read_runs(path: Path, catalog: Catalog) -> tuple[list[Run], list[LeftOut]]:
    """Read a table of closed-loop runs (`silicon_dense_serving.csv`): one row per run.

    Runs of an engine, GPU, precision or model that the catalog lacks are left out, and returned with the reason.

    Raises
    ------
    InputError
        With line and column of every value that is none, or if no run is left.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
            if missing:
                raise InputError(f"{path}: columns {', '.join(missing)} are missing, expected {', '.join(COLUMNS)}")
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV in UTF-8: {error}") from None
    if not rows:
        raise InputError(f"{path}: there is no row")
    names = Names(catalog)
    problems: list[str] = []
    runs: list[Run] = []
    left_out: list[LeftOut] = []
    for line, row in rows:
        try:
            run = _run(row, line, names, catalog)
        except InputError as error:
            problems += [f"{path}:{line}: {problem}" for problem in error.problems]
            continue
        if isinstance(run, Run):
            runs.append(run)
        else:
            left_out.append(run)
    if not problems and not runs:
        problems = [f"{path}:{one.line}: {one.reason}" for one in left_out]
    if problems:
        more = len(problems) - MOST_PROBLEMS
        raise InputError(problems[:MOST_PROBLEMS] + [f"{path}: and {more} more"] * (more > 0))
    return runs, left_out


def _run(row: Mapping[str, str | None], line: int, names: Names, catalog: Catalog) -> Run | LeftOut:
    problems = []

    def text(name: str) -> str:
        return (row.get(name) or "").strip()

    def number(name: str, *, whole: bool) -> float:
        try:
            value = float(text(name))
        except ValueError:
            value = float("nan")
        if not (0 < value < 1e9) or (whole and value != int(value)):
            problems.append(f"{name}: found {text(name)!r}, expected a {'whole ' * whole}number above 0")
            return 1.0
        return value

    whole = {name: int(number(name, whole=True)) for name in ("input_tokens", "output_tokens", "concurrency", "tp")}
    pipeline = int(number("pp", whole=True)) if text("pp") else 1
    times = {name: number(name, whole=False) / 1e3 for name in ("ttft_ms", "tpot_ms")}
    precision = text("precision") or DEFAULT_PRECISION
    if problems:
        raise InputError(problems)
    unknown = names.problem(text("gpu"), precision, text("model"))
    if text("backend") not in catalog.engines:
        unknown = f"backend {text('backend')!r} is not in the catalog; {closest(text('backend'), catalog.engines)}"
    model, tier = names.model(text("model")), names.tier(text("gpu"), precision)
    if unknown is not None or model is None or tier is None:
        return LeftOut(line, unknown or "not in the catalog")
    return Run(
        line=line,
        backend=text("backend"),
        model_name=text("model"),
        gpu=text("gpu"),
        precision=text("precision"),
        model=model,
        tier=tier,
        tensor_parallel=whole["tp"],
        pipeline_parallel=pipeline,
        input_tokens=whole["input_tokens"],
        output_tokens=whole["output_tokens"],
        concurrency=whole["concurrency"],
        equal_requests=bool(text("backend_version")),
        ttft_s=times["ttft_ms"],
        tpot_s=times["tpot_ms"],
    )


def _admission(engine: ServingEngine) -> Admission | None:
    match engine.scheduling:
        case Scheduling.ONE_PROMPT:
            return one_prompt_a_step(engine.token_budget)
        case Scheduling.WAVES:
            return waves()
        case Scheduling.FILL:
            return None


def replica_of(run: Run, engine: ServingEngine, step: StepTicks) -> ReplicaSpec:
    """The replica that a run is replayed on."""
    return ReplicaSpec(
        discipline=BATCHING,
        step=step,
        prefill_ticks_per_token=0,
        decode_ticks_per_token=0,
        kv_capacity_tokens=kv_capacity_tokens(run.model, run.tier, run.tensor_parallel, run.pipeline_parallel)
        * BYTES
        // kv_bytes(run.tier, engine),
        token_budget=engine.token_budget,
        admission=_admission(engine),
    )


def replay_run(run: Run, engine: ServingEngine) -> Replayed | None:
    """Replay one run under the protocol of the module text; None if its requests exceed the KV cache."""
    delay = RooflineDelay(engine=engine, prompt_tokens=run.input_tokens, sequences=max(2, run.concurrency))
    cost = delay.step_cost(run.model, run.tier, run.tensor_parallel, run.pipeline_parallel)
    spec = replica_of(run, engine, cost.ticks())
    if spec.kv_capacity_tokens < run.input_tokens + run.output_tokens:
        return None
    lengths = run.lengths()
    served = serve(
        spec,
        clients=run.concurrency,
        input_tokens=lengths[0],
        output_tokens=lengths[1],
    )
    outside_s = engine.ttft_s + engine.ttft_token_s * run.input_tokens
    return Replayed(
        run=run,
        ttft_s=float(served.ttft_s.mean()) + outside_s,
        tpot_s=float(served.tpot_s.mean()),
        preemptions=served.preemptions,
    )


def schedule_of(run: Run, engine: ServingEngine) -> Schedule | None:
    """The sequence of steps of a run, without their durations; None if its requests exceed the KV cache."""
    spec = replica_of(run, engine, StepTicks(base=1, prefill_per_token=0, decode_per_sequence=0, context_per_token=0))
    if spec.kv_capacity_tokens < run.input_tokens + run.output_tokens:
        return None
    lengths = run.lengths()
    return schedule(
        spec,
        clients=run.concurrency,
        input_tokens=lengths[0],
        output_tokens=lengths[1],
    )


def quantiles(errors: Sequence[float]) -> tuple[float, float, float]:
    """P50, P75 and P90 of the absolute errors."""
    found = np.quantile(np.abs(np.array(errors)), [0.5, 0.75, 0.9]).tolist()
    return found[0], found[1], found[2]


def groups(replayed: Sequence[Replayed]) -> Iterator[tuple[tuple[str, str, str, str, int], list[Replayed]]]:
    """Runs of one backend, model, GPU, precision and TP degree, in the order of the file."""
    keys = dict.fromkeys(
        (r.run.backend, r.run.model_name, r.run.gpu, r.run.precision, r.run.tensor_parallel) for r in replayed
    )
    for key in keys:
        yield (
            key,
            [
                r
                for r in replayed
                if (r.run.backend, r.run.model_name, r.run.gpu, r.run.precision, r.run.tensor_parallel) == key
            ],
        )
