"""Measured requests of one engine instance, replayed with their own arrivals and lengths
(`llmservingsim_vllm_requests_*.csv`)."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from experiments.calibrate.names import Names
from simulator.catalog import Catalog, LlmModel, ServingEngine, Tier, kv_capacity_tokens
from simulator.delay import RooflineDelay
from simulator.errors import InputError
from simulator.replica.batching import BATCHING, BatchingReplica
from simulator.replica.port import NEVER, ReplicaSpec, RequestBook
from simulator.ticks import TICKS_PER_S

FloatArray = npt.NDArray[np.float64]

COLUMNS = (
    "gpu",
    "model",
    "tp",
    "max_batched_tokens",
    "input_tokens",
    "output_tokens",
    "arrival_s",
    "first_token_s",
    "last_token_s",
)
BACKEND = "vllm"
PRECISION = "bf16"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeasuredRequests:
    """One instance and its requests in the order of arrival; times in seconds, all arrays of one length."""

    gpu: str
    model_name: str
    model: LlmModel
    tier: Tier
    tensor_parallel: int
    token_budget: int
    arrival_s: FloatArray
    input_tokens: npt.NDArray[np.int64]
    output_tokens: npt.NDArray[np.int64]
    first_token_s: FloatArray
    last_token_s: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Latencies:
    """TTFT, TPOT and E2E of each request [s]; TPOT is NaN for answers of one token."""

    ttft_s: FloatArray
    tpot_s: FloatArray
    e2e_s: FloatArray


def is_request_file(path: Path) -> bool:
    """Whether a file has the columns of such a table."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            header = next(csv.reader([file.readline()]), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
    return {"arrival_s", "first_token_s", "last_token_s"} <= set(header)


def read_requests(path: Path, catalog: Catalog) -> MeasuredRequests:
    """Read the requests of one instance.

    Raises
    ------
    InputError
        With line and column of everything that cannot be used.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
        if missing:
            raise InputError(f"{path}: columns {', '.join(missing)} are missing, expected {', '.join(COLUMNS)}")
        rows = [(reader.line_num, row) for row in reader]
    if not rows:
        raise InputError(f"{path}: there is no row")
    problems: list[str] = []

    def column(name: str) -> FloatArray:
        values = []
        for line, row in rows:
            try:
                value = float(row[name] or "")
            except ValueError:
                value = float("nan")
            if not 0 <= value < 1e9:
                problems.append(f"{path}:{line}: {name}: found {row[name]!r}, expected a number of at least 0")
                value = 0.0
            values.append(value)
        return np.array(values)

    numbers = {name: column(name) for name in COLUMNS[2:]}
    for name in ("gpu", "model", "tp", "max_batched_tokens"):
        found = sorted({row[name] or "" for _, row in rows})
        if len(found) > 1:
            problems.append(f"{path}: {name}: found {', '.join(found)}, expected one instance per file")
    for (line, _), first, arrival, last in zip(
        rows, numbers["first_token_s"], numbers["arrival_s"], numbers["last_token_s"], strict=True
    ):
        if not arrival < first <= last:
            problems.append(f"{path}:{line}: expected arrival_s < first_token_s <= last_token_s")
    names = Names(catalog)
    row = rows[0][1]
    gpu, model_name = row["gpu"] or "", row["model"] or ""
    problem = names.problem(gpu, PRECISION, model_name)
    problems += [] if problem is None else [f"{path}:{rows[0][0]}: {problem}"]
    model, tier = names.model(model_name), names.tier(gpu, PRECISION)
    if problems or model is None or tier is None:
        raise InputError(problems[:20])
    order = np.argsort(numbers["arrival_s"], kind="stable")
    return MeasuredRequests(
        gpu=gpu,
        model_name=model_name,
        model=model,
        tier=tier,
        tensor_parallel=max(1, int(numbers["tp"][0])),
        token_budget=max(1, int(numbers["max_batched_tokens"][0])),
        arrival_s=numbers["arrival_s"][order],
        input_tokens=numbers["input_tokens"][order].astype(np.int64),
        output_tokens=numbers["output_tokens"][order].astype(np.int64),
        first_token_s=numbers["first_token_s"][order],
        last_token_s=numbers["last_token_s"][order],
    )


def measured_latencies(measured: MeasuredRequests) -> Latencies:
    """Latencies that the clients of the real engine measured."""
    return _latencies(measured, measured.first_token_s, measured.last_token_s)


def replay_requests(measured: MeasuredRequests, engine: ServingEngine) -> Latencies:
    """The same requests on one simulated replica.

    Raises
    ------
    InputError
        If a request exceeds the KV cache.
    """
    delay = RooflineDelay(engine=engine, prompt_tokens=max(1, int(measured.input_tokens.mean())))
    spec = ReplicaSpec(
        discipline=BATCHING,
        step=delay.step_cost(measured.model, measured.tier, measured.tensor_parallel, 1).ticks(),
        prefill_ticks_per_token=0,
        decode_ticks_per_token=0,
        kv_capacity_tokens=kv_capacity_tokens(measured.model, measured.tier, measured.tensor_parallel, 1),
        token_budget=measured.token_budget,
    )
    book = RequestBook()
    book.extend(measured.input_tokens.tolist(), measured.output_tokens.tolist())
    replica = BatchingReplica(0, spec, book)
    arrivals = np.round(measured.arrival_s * TICKS_PER_S).astype(np.int64).tolist()
    for request, arrival in enumerate(arrivals):
        while replica.next_tick is not None and replica.next_tick < arrival:
            replica.boundary(replica.next_tick)
        if not replica.fits(request):
            raise InputError(f"request {request}: its tokens exceed the KV cache of {spec.kv_capacity_tokens}")
        replica.enqueue(request, arrival)
    while replica.next_tick is not None:
        replica.boundary(replica.next_tick)
    assert NEVER not in book.finish_tick
    first_s = np.array(book.first_token_tick) / TICKS_PER_S
    outside_s = engine.ttft_s + engine.ttft_token_s * measured.input_tokens
    return _latencies(measured, first_s + outside_s, np.array(book.finish_tick) / TICKS_PER_S + outside_s)


def _latencies(measured: MeasuredRequests, first_s: FloatArray, last_s: FloatArray) -> Latencies:
    gaps = np.where(measured.output_tokens > 1, measured.output_tokens - 1.0, np.nan)
    return Latencies(
        ttft_s=first_s - measured.arrival_s,
        tpot_s=(last_s - first_s) / gaps,
        e2e_s=last_s - measured.arrival_s,
    )
