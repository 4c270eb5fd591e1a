"""Fit the delay model of each GPU tier in a file of measured steps, with the errors of the fit."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from experiments.calibrate.fit import (
    LEAST_ROWS,
    Fitted,
    FloatArray,
    Steps,
    constant_errors,
    errors,
    fit,
    left_out,
    phase_error,
)
from experiments.calibrate.measurements import Measurements
from experiments.calibrate.names import Names
from simulator.catalog import Catalog, Evidence, PhaseError, Range, RooflineConstants, Tier, carried_over, nearest_tier
from simulator.delay.roofline import Load, Shape
from simulator.errors import InputError

OWN = "tokenfleet"  # rows in our own schema: only their user knows where they are from
CITATIONS = {
    "composed": "vLLM 0.14 kernels measured by NVIDIA AIConfigurator (core 0.12.0, 2025-2026, Apache-2.0), summed",
    "splitwise": "Steps measured by Patel et al., Splitwise, ISCA 2024 (splitwise-sim, MIT)",
    OWN: "Own measurements",
}
"""By kind of file; the sum of kernels is recognised by its parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Errors on the rows of one TP degree or model by a fit without them."""

    what: str
    which: str
    prefill: PhaseError | None
    decode: PhaseError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TierFit:
    """The fitted constants of one tier, with a summary of the measurements and the errors of the fit."""

    tier: Tier
    kind: str
    citation: str
    evidence: Evidence
    steps: Steps
    fitted: Fitted
    range: Range
    prefill: PhaseError | None
    decode: PhaseError | None
    left_out: tuple[LeftOut, ...]
    unseen_prefill: PhaseError | None
    unseen_decode: PhaseError | None
    ratio_prefill: PhaseError | None = None
    ratio_decode: PhaseError | None = None
    ratio_basis: str | None = None
    paper_prefill: PhaseError | None = None  # of the paper's form, fitted to the same rows
    paper_decode: PhaseError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """Errors on rows that were not fitted to; GPU and precision as their file writes them."""

    gpu: str
    precision: str
    tier: str
    phase: str
    error: PhaseError
    bias: float  # median of the signed errors


def steps_by_tier(measurements: Measurements, catalog: Catalog) -> dict[str, tuple[Tier, Steps]]:
    """The steps of each tier, by its name.

    Raises
    ------
    InputError
        With the line of each row whose GPU, precision or model the catalog lacks; one message for each name.
    """
    names = Names(catalog)
    problems: dict[str, str] = {}
    for gpu, precision, model, line in zip(
        measurements.gpu, measurements.precision, measurements.model, measurements.line.tolist(), strict=True
    ):
        problem = names.problem(gpu, precision, model)
        if problem is not None:
            problems.setdefault(problem, f"{measurements.path}:{line}: {problem}")
    if problems:
        raise InputError(problems.values())
    tiers = [names.tier(*pair) for pair in zip(measurements.gpu, measurements.precision, strict=True)]
    found: dict[str, tuple[Tier, Steps]] = {}
    for tier in dict.fromkeys(tier.name for tier in tiers if tier is not None):
        which = np.array([own is not None and own.name == tier for own in tiers])
        found[tier] = (catalog.tiers[tier], _steps(measurements.rows(which), catalog.tiers[tier], names))
    return found


def _steps(rows: Measurements, tier: Tier, names: Names) -> Steps:
    shapes: dict[tuple[str, int, int], Shape] = {}
    own = []
    degrees = zip(rows.tensor_parallel.tolist(), rows.pipeline_parallel.tolist(), strict=True)
    for model, (n, m) in zip(rows.model, degrees, strict=True):
        key = (model, n, m)
        if key not in shapes:
            known = names.model(model)
            assert known is not None  # `steps_by_tier` has refused unknown models
            shapes[key] = Shape.of(known, tier, n, m)
        own.append(shapes[key])
    shape = Shape(
        **{name: np.array([getattr(one, name) for one in own], dtype=np.float64) for name in Shape.__dataclass_fields__}
    )
    batch, query, context = (
        column.astype(np.float64) for column in (rows.batch, rows.query_tokens, rows.context_tokens)
    )
    prefill = rows.prefill
    load = Load(
        prompt_tokens=np.where(prefill, batch * query, 0.0),
        prompt_pairs=np.where(prefill, batch * query * (context - query / 2), 0.0),
        prompts=np.where(prefill, batch, 0.0),
        sequences=np.where(prefill, 0.0, batch),
        context_tokens=np.where(prefill, 0.0, batch * context),
    )
    return Steps(
        shape=shape,
        load=load,
        step_s=rows.step_s,
        all_reduce_s=rows.parts_s.get("allreduce"),
        prefill=prefill,
        tensor_parallel=rows.tensor_parallel,
        model=np.array([_model_name(names, model) for model in rows.model]),
    )


def _model_name(names: Names, model: str) -> str:
    known = names.model(model)
    assert known is not None
    return known.name


def calibrate(measurements: Measurements, catalog: Catalog) -> list[TierFit]:
    """Fit every tier of a file.

    Raises
    ------
    InputError
        If a name is unknown, a tier has too few rows, or a fit makes no sense (a share above the datasheet peak).
    """
    by_tier = steps_by_tier(measurements, catalog)
    problems = [
        f"{measurements.path}: {name}: {len(steps)} rows, expected at least {LEAST_ROWS} to fit anything"
        for name, (_, steps) in by_tier.items()
        if len(steps) < LEAST_ROWS
    ]
    if problems:
        raise InputError(problems)
    fits = [_fit_tier(tier, steps, measurements) for tier, steps in by_tier.values()]
    nonsense = [
        f"{measurements.path}: {one.tier.name}: {reason}; nothing was written"
        for one in fits
        for reason in one.fitted.nonsense
    ]
    if nonsense:
        raise InputError(nonsense)
    return fits


def with_ratios(fits: Sequence[TierFit]) -> list[TierFit]:
    """Add to each fit the errors that its nearest tier's constants make on its rows: the price of extrapolating."""
    found = []
    for one in fits:
        others = {other.tier.name: other for other in fits if other.tier.gpu != one.tier.gpu}
        if others:
            basis = others[nearest_tier(one.tier, [other.tier for other in others.values()]).name]
            prefill, decode = _phases(
                errors(carried_over(basis.fitted.constants, basis.tier, one.tier), one.steps), one.steps
            )
            found.append(replace(one, ratio_prefill=prefill, ratio_decode=decode, ratio_basis=basis.tier.name))
        else:
            found.append(one)
    return found


def _fit_tier(tier: Tier, steps: Steps, measurements: Measurements) -> TierFit:
    fitted = fit(steps, tier.interconnect)
    prefill, decode = _phases(errors(fitted.constants, steps), steps)
    paper = _phases(constant_errors(steps), steps)
    folds, unseen = [], ([], [])  # type: tuple[list[LeftOut], tuple[list[FloatArray], list[FloatArray]]]
    judged = "model" if len(np.unique(steps.model)) > 1 else "tensor_parallel"
    if not fitted.nonsense:
        for what, which, tested, relative in left_out(steps, tier.interconnect):
            own = _phases(relative, tested)
            folds.append(LeftOut(what=what, which=which, prefill=own[0], decode=own[1]))
            if what == judged:
                unseen[0].append(relative[tested.prefill])
                unseen[1].append(relative[~tested.prefill])
    return TierFit(
        tier=tier,
        kind=measurements.kind,
        citation=f"{CITATIONS[measurements.kind]} ({Path(measurements.path).name}, {len(steps)} steps)",
        evidence=Evidence.COMPOSED if measurements.parts_s else Evidence.MEASURED,
        steps=steps,
        fitted=fitted,
        range=_range(steps),
        prefill=prefill,
        decode=decode,
        left_out=tuple(folds),
        paper_prefill=paper[0],
        paper_decode=paper[1],
        unseen_prefill=_pooled(unseen[0]),
        unseen_decode=_pooled(unseen[1]),
    )


def _phases(relative: FloatArray, steps: Steps) -> tuple[PhaseError | None, PhaseError | None]:
    return phase_error(relative[steps.prefill]), phase_error(relative[~steps.prefill])


def _pooled(folds: Sequence[FloatArray]) -> PhaseError | None:
    return phase_error(np.concatenate(folds)) if folds else None


def _range(steps: Steps) -> Range:
    return Range(
        tensor_parallel=tuple(np.unique(steps.tensor_parallel).tolist()),
        models=tuple(dict.fromkeys(steps.model.tolist())),
        prompt_tokens=int(np.max(steps.load.prompt_tokens, initial=0)),
        sequences=int(np.max(steps.load.sequences, initial=0)),
        context_tokens=int(np.max(steps.load.context_tokens, initial=0)),
    )


def tested_errors(
    measurements: Measurements, catalog: Catalog, constants: dict[str, RooflineConstants]
) -> tuple[list[Tested], list[str]]:
    """Errors of constants, by tier, on rows that they were not fitted to; and the tiers of the file that have none.

    Raises
    ------
    InputError
        If a name is unknown.
    """
    written: dict[str, tuple[str, str]] = {}
    names = Names(catalog)
    for gpu, precision in zip(measurements.gpu, measurements.precision, strict=True):
        tier = names.tier(gpu, precision)
        if tier is not None:
            written.setdefault(tier.name, (gpu, precision))
    tested: list[Tested] = []
    without: list[str] = []
    for name, (_, steps) in steps_by_tier(measurements, catalog).items():
        if name not in constants:
            without.append(name)
            continue
        relative = errors(constants[name], steps)
        for phase, which in (("prefill", steps.prefill), ("decode", ~steps.prefill)):
            error = phase_error(relative[which])
            if error is not None:
                gpu, precision = written[name]
                bias = float(np.median(relative[which]))
                tested.append(Tested(gpu=gpu, precision=precision, tier=name, phase=phase, error=error, bias=bias))
    return tested, without


def toml_of(fits: Iterable[TierFit], citation: str | None = None) -> str:
    """The `[calibration.*]` blocks of some fits, as a catalog file."""
    lines = [
        "# Constants of the `roofline` delay model, written by `tokenfleet calibrate`. Do not edit: run it again.",
        "# What each constant is: simulator/catalog/calibration.py; the form: simulator/delay/roofline.py.",
    ]
    for one in fits:
        name = one.tier.name
        source = f"{one.kind}-steps-{name}"
        told = _text(citation if citation and one.kind == OWN else one.citation)
        lines += [
            "",
            f"[calibration.{name}]",
            f'evidence = "{one.evidence}"',
            f'source = "{source}"',
            f'sources.{source} = {{ kind = "{one.evidence}", citation = {told} }}',
        ]
        constants = one.fitted.constants
        lines += [
            f"{field} = {_number(getattr(constants, field))}"
            for field in RooflineConstants.__dataclass_fields__
            if field != "communication"
        ]
        lines += [
            f"range = {{ tensor_parallel = {list(one.range.tensor_parallel)}, "
            f"models = [{', '.join(map(_text, one.range.models))}], prompt_tokens = {one.range.prompt_tokens}, "
            f"sequences = {one.range.sequences}, context_tokens = {one.range.context_tokens} }}"
        ]
        lines += [
            f"error.{which} = {{ rows = {error.rows}, mape = {_number(error.mape)}, p90 = {_number(error.p90)} }}"
            for which, error in (
                ("prefill", one.prefill),
                ("decode", one.decode),
                ("unseen_prefill", one.unseen_prefill),
                ("unseen_decode", one.unseen_decode),
                ("ratio_prefill", one.ratio_prefill),
                ("ratio_decode", one.ratio_decode),
            )
            if error is not None
        ]
        for degree, link in constants.communication.items():
            fields = ", ".join(
                f"{field} = {_number(getattr(link, field))}" for field in type(link).__dataclass_fields__
            )
            lines.append(f"communication.{degree} = {{ {fields} }}")
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    """Round to four significant digits, which is more than any of these measurements supports."""
    text = f"{value:.4g}"
    return text if any(mark in text for mark in ".e") else f"{text}.0"


def _text(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
