"""Problem files (`tokenfleet-problem/1`) and plan files (`tokenfleet-plan/1`): JSON, optionally gzipped."""

import gzip
import json
import os
import tempfile
import zlib
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from simulator.catalog.configuration import Configuration, ModelSize, TierSize
from simulator.errors import InputError
from simulator.planning.paper_rows import paper_problem
from simulator.planning.plan import Deployment, Plan, PlanStatus, Route
from simulator.planning.problem import PlanningProblem, QueryType
from simulator.validation import StrictModel, refuse_beyond_reason, validated

# Strict: Pydantic would take "5" and true for numbers. An integer is a good float all the same.
Number = Annotated[float, Field(strict=True)]
NonNegative = Annotated[float, Field(strict=True, ge=0)]
Positive = Annotated[float, Field(strict=True, gt=0)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Count = Annotated[int, Field(strict=True, ge=1, le=10**9)]
Degree = Annotated[int, Field(strict=True, ge=1, le=10**6)]


MOST_BYTES = 256 << 20  # of a document, unpacked


class _QueryType(StrictModel):
    name: str
    arrival_per_h: NonNegative
    input_tokens: NonNegative
    output_tokens: NonNegative
    delay_slo_s: Positive
    error_slo: NonNegative
    delay_penalty_usd_per_query_s: NonNegative
    unmet_penalty_usd_per_query: NonNegative
    unmet_cap: Share
    token_storage_gb_per_token: NonNegative


class _Model(StrictModel):
    name: str
    parameters_b: Positive
    weights_gb: Positive
    kv_mb_per_token: Positive


class _Tier(StrictModel):
    name: str
    memory_gb: Positive
    compute_tflops: Positive
    compute_efficiency: Annotated[float, Field(strict=True, gt=0, le=1)]
    bandwidth_gb_s: Positive
    price_usd_per_gpu_h: NonNegative
    weight_factor: Positive


class _Configuration(StrictModel):
    model: str
    tier: str
    tensor_parallel: Degree
    pipeline_parallel: Degree


class _Problem(StrictModel):
    format: Literal["tokenfleet-problem/1"]
    name: str
    period_h: Positive
    budget_usd: NonNegative
    storage_price_usd_per_gb_h: NonNegative
    storage_capacity_gb: NonNegative
    max_replicas: Count
    query_types: Annotated[tuple[_QueryType, ...], Field(min_length=1)]
    models: Annotated[tuple[_Model, ...], Field(min_length=1)]
    tiers: Annotated[tuple[_Tier, ...], Field(min_length=1)]
    configurations: Annotated[tuple[_Configuration, ...], Field(min_length=1)]
    delay_s: tuple[tuple[NonNegative, ...], ...]
    error: tuple[tuple[NonNegative, ...], ...]


def _inconsistencies(raw: _Problem) -> list[str]:
    """Parts of a problem that do not fit together, each with its field's path."""
    problems = []
    for field in ("query_types", "models", "tiers"):
        names = [item.name for item in getattr(raw, field)]
        problems += [f"{field}[{n}].name: {name!r} again" for n, name in enumerate(names) if name in names[:n]]
    models, tiers = {m.name for m in raw.models}, {t.name for t in raw.tiers}
    seen = set()
    for a, c in enumerate(raw.configurations):
        if c.model not in models:
            problems.append(f"configurations[{a}].model: {c.model!r} is not in models")
        if c.tier not in tiers:
            problems.append(f"configurations[{a}].tier: {c.tier!r} is not in tiers")
        key = (c.model, c.tier, c.tensor_parallel, c.pipeline_parallel)
        if key in seen:
            problems.append(f"configurations[{a}]: repeats an earlier configuration")
        seen.add(key)
    types, configurations = len(raw.query_types), len(raw.configurations)
    for field in ("delay_s", "error"):
        rows = getattr(raw, field)
        if len(rows) != types:
            problems.append(f"{field}: expected {types} rows, one per query type, found {len(rows)}")
        problems += [
            f"{field}[{i}]: expected {configurations} values, one per configuration, found {len(row)}"
            for i, row in enumerate(rows)
            if len(row) != configurations
        ]
    return problems


class _Deployment(StrictModel):
    model: str
    tier: str
    tensor_parallel: Degree
    pipeline_parallel: Degree
    replicas: Count
    tpot_target_s: Positive | None = None


class _Route(StrictModel):
    query_type: str
    model: str
    tier: str
    share: Share


class _Unmet(StrictModel):
    query_type: str
    share: Share


class _Plan(StrictModel):
    format: Literal["tokenfleet-plan/1"]
    problem: str
    policy: str
    status: PlanStatus = PlanStatus.FEASIBLE
    cost_usd: Number
    bound_usd: Number | None
    seconds: NonNegative | None
    deployments: tuple[_Deployment, ...]
    routing: tuple[_Route, ...]
    unmet: tuple[_Unmet, ...]


def read_bytes(path: Path) -> bytes:
    """Content of a document, gunzipped if its first bytes say so.

    Raises
    ------
    InputError
        If it cannot be read, or holds more than `MOST_BYTES` (unpacked): a small archive may hold any number of blanks.
    """
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with gzip.GzipFile(fileobj=raw) if packed else nullcontext(raw) as file:
                data = file.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > MOST_BYTES:
        raise InputError(f"{path}: holds more than {MOST_BYTES >> 20} MiB, more than any document of tokenfleet")
    return data


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, whose keys must differ: of two equal ones Python would keep the last."""
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = next(key for n, (key, _) in enumerate(pairs) if key in [earlier for earlier, _ in pairs[:n]])
        raise _RepeatedKeyError(twice)
    return made


class _RepeatedKeyError(ValueError):
    """A key stands twice in one object."""


def read_json(path: Path) -> Any:
    """Read a JSON file, gzipped or not (told by its first bytes)."""
    try:
        return json.loads(read_bytes(path), object_pairs_hook=_once)
    except _RepeatedKeyError as error:
        raise InputError(f"{path}: the key {str(error)!r} stands twice in one object") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: expected JSON in UTF-8") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: line {error.lineno}, column {error.colno}: expected JSON: {error.msg}") from None
    except (RecursionError, ValueError):
        raise InputError(f"{path}: expected JSON with moderate nesting and numbers") from None


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: under a temporary name beside it, then renamed. A name in .gz is gzipped."""
    data = text.encode()
    if path.suffix == ".gz":
        data = gzip.compress(data, mtime=0)  # the same text, the same bytes
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_problem(path: Path) -> PlanningProblem:
    """Read a `tokenfleet-problem/1` file.

    Raises
    ------
    InputError
        Naming each field that is missing, unknown, out of range or of the wrong shape.
    """
    stated = read_json(path)
    raw = validated(_Problem, stated, str(path))
    refuse_beyond_reason(stated, str(path))
    if problems := _inconsistencies(raw):
        raise InputError(f"{path}: {problem}" for problem in problems)
    return paper_problem(
        name=raw.name,
        period_h=raw.period_h,
        budget_usd=raw.budget_usd,
        storage_price_usd_per_gb_h=raw.storage_price_usd_per_gb_h,
        storage_capacity_gb=raw.storage_capacity_gb,
        max_replicas=raw.max_replicas,
        query_types=[QueryType(**item.model_dump()) for item in raw.query_types],
        models=[ModelSize(**item.model_dump()) for item in raw.models],
        tiers=[TierSize(**item.model_dump()) for item in raw.tiers],
        configurations=[Configuration(**item.model_dump()) for item in raw.configurations],
        delay_s=np.array(raw.delay_s, dtype=np.float64),
        error=np.array(raw.error, dtype=np.float64),
    )


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """The `tokenfleet-plan/1` object of a plan."""
    deployments = []
    for deployment in plan.deployments:
        c = deployment.configuration
        item: dict[str, Any] = {
            "model": c.model,
            "tier": c.tier,
            "tensor_parallel": c.tensor_parallel,
            "pipeline_parallel": c.pipeline_parallel,
            "replicas": deployment.replicas,
        }
        if c.tpot_target_s is not None:
            item["tpot_target_s"] = c.tpot_target_s
        deployments.append(item)
    return {
        "format": "tokenfleet-plan/1",
        "problem": plan.problem,
        "policy": plan.policy,
        "status": str(plan.status),
        "cost_usd": plan.cost_usd,
        "bound_usd": plan.bound_usd,
        "seconds": plan.seconds,
        "deployments": deployments,
        "routing": [
            {"query_type": r.query_type, "model": r.model, "tier": r.tier, "share": r.share} for r in plan.routing
        ],
        "unmet": [{"query_type": name, "share": share} for name, share in plan.unmet],
    }


def write_plan(path: Path, plan: Plan) -> None:
    """Write a `tokenfleet-plan/1` file."""
    write_text(path, json.dumps(plan_to_dict(plan), indent=1, allow_nan=False) + "\n")


def read_plan(path: Path) -> Plan:
    """Read a `tokenfleet-plan/1` file. Whether it keeps its constraints is for the checker to say."""
    raw = validated(_Plan, read_json(path), str(path))
    return Plan(
        problem=raw.problem,
        policy=raw.policy,
        status=raw.status,
        cost_usd=raw.cost_usd,
        bound_usd=raw.bound_usd,
        seconds=raw.seconds,
        deployments=tuple(
            Deployment(
                configuration=Configuration(
                    model=d.model,
                    tier=d.tier,
                    tensor_parallel=d.tensor_parallel,
                    pipeline_parallel=d.pipeline_parallel,
                    tpot_target_s=d.tpot_target_s,
                ),
                replicas=d.replicas,
            )
            for d in raw.deployments
        ),
        routing=tuple(Route(**r.model_dump()) for r in raw.routing),
        unmet=tuple((u.query_type, u.share) for u in raw.unmet),
    )
