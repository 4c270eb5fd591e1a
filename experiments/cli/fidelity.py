"""`tokenfleet fidelity`: its options, tables and files."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from experiments.calibrate.engine_fit import PRIORS, Pricing, fit_engine
from experiments.calibrate.measured_requests import (
    BACKEND,
    is_request_file,
    measured_latencies,
    read_requests,
    replay_requests,
)
from experiments.calibrate.serving_runs import LeftOut, Replayed, Run, groups, quantiles, read_runs, replay_run
from experiments.options import CatalogOption, JsonOption
from experiments.show.atomic_write import write_whole
from experiments.show.progress import Terminal
from simulator.catalog import Catalog, ServingEngine, load_catalog, with_calibrations
from simulator.errors import InputError

PERCENTILES = (50, 90, 99)


def command(
    context: typer.Context,
    measurements: Annotated[
        Path, typer.Argument(metavar="FILE", help="Closed-loop runs, or requests of one instance, as CSV.")
    ],
    catalog_file: CatalogOption = None,
    fit: Annotated[
        Path | None,
        typer.Option(
            "--fit", help="Fit the constants of the engines to these runs and write them to this catalog file."
        ),
    ] = None,
    hold_out: Annotated[
        bool,
        typer.Option("--hold-out", help="Fit without each TP degree and each model in turn; report what was left out."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Replay measured runs of real engines, and say how far TTFT and TPOT are off.

    Example: `tokenfleet fidelity silicon_dense_serving.csv`
    """
    terminal: Terminal = context.obj
    catalog = load_catalog(catalog_file)
    if is_request_file(measurements):
        if fit is not None or hold_out:
            raise InputError("--fit and --hold-out need closed-loop runs, one row each")
        _requests(terminal, measurements, catalog, as_json=as_json)
        return
    runs, left_out = read_runs(measurements, catalog)
    if fit is not None:
        engines = {
            name: _fitted([run for run in runs if run.backend == name], catalog.engines[name])
            for name in dict.fromkeys(run.backend for run in runs)
        }
        write_whole(fit, engines_toml(engines.values(), f"{measurements.name}: {len(runs)} closed-loop runs"))
        terminal.note(f"constants of {', '.join(engines)} written to {fit}")
        catalog = replace(catalog, engines={**catalog.engines, **engines})
    replayed, skipped = replay_all(runs, catalog)
    left_out += [LeftOut(run.line, "its requests exceed the KV cache") for run in skipped]
    for reason, lines in _by_reason(left_out).items():
        terminal.note(
            f"{_runs(len(lines))} left out (line {', '.join(map(str, lines[:5]))}{' ...' * (len(lines) > 5)}): {reason}"
        )
    if any(run.pipeline_parallel > 1 for run in runs):
        terminal.note("runs with PP > 1: their step times are not validated")
    result = {
        "summary": summary(replayed),
        "not_replayed": [asdict(one) for one in left_out],
    }
    folds = held_out(runs, catalog) if hold_out else []
    if hold_out:
        result["held_out"] = [{key: value for key, value in fold.items() if key != "runs"} for fold in folds]
    if as_json:
        terminal.print_json(result)
        return
    terminal.out.print(_table(result["summary"]))
    if folds:
        terminal.out.print(_fold_table(folds))
    for engine in dict.fromkeys(run.backend for run in runs):
        own = [one for one in replayed if one.run.backend == engine]
        if own:
            ttft, tpot = (quantiles([getattr(one, name) for one in own]) for name in ("ttft_error", "tpot_error"))
            terminal.say(
                f"{engine}: {_runs(len(own))}, P50/P75/P90 of the errors: TPOT {_three(tpot)}, TTFT {_three(ttft)}"
            )


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def _by_reason(left_out: Sequence[LeftOut]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for one in left_out:
        found.setdefault(one.reason, []).append(one.line)
    return found


def replay_all(runs: Sequence[Run], catalog: Catalog) -> tuple[list[Replayed], list[Run]]:
    """Every run replayed, and those that cannot be."""
    pairs = [(run, replay_run(run, catalog.engines[run.backend])) for run in runs]
    return [found for _, found in pairs if found is not None], [run for run, found in pairs if found is None]


def summary(replayed: Sequence[Replayed]) -> list[dict[str, Any]]:
    """A row per backend, model, GPU, precision and TP degree; the errors are medians of absolute relative ones."""
    rows = []
    for (backend, model, gpu, precision, tensor_parallel), own in groups(replayed):
        ttft, tpot = (quantiles([getattr(one, name) for one in own]) for name in ("ttft_error", "tpot_error"))
        calibration = own[0].run.tier.calibration
        rows.append(
            {
                "backend": backend,
                "model": model,
                "gpu": gpu,
                "precision": precision or None,
                "tp": tensor_parallel,
                "rows": len(own),
                "ttft_median_error": ttft[0],
                "ttft_p75_error": ttft[1],
                "ttft_p90_error": ttft[2],
                "tpot_median_error": tpot[0],
                "tpot_p75_error": tpot[1],
                "tpot_p90_error": tpot[2],
                "tier": own[0].run.tier.name,
                "evidence": None if calibration is None else str(calibration.evidence),
            }
        )
    return rows


def held_out(runs: Sequence[Run], catalog: Catalog, kinds: Sequence[str] = ("tp", "model")) -> list[dict[str, Any]]:
    """Errors on each TP degree, model or concurrency by engine constants that were fitted without it.

    Last come the errors on each GPU without its calibration, by another's constants and datasheet ratios.
    """
    rows = []
    for backend in dict.fromkeys(run.backend for run in runs):
        own = [run for run in runs if run.backend == backend]
        for what in kinds:
            values = dict.fromkeys(_value(run, what) for run in own)
            for value in values if len(values) > 1 else []:
                engine = _fitted([run for run in own if _value(run, what) != value], catalog.engines[backend])
                tested = [run for run in own if _value(run, what) == value]
                found, _ = replay_all(tested, replace(catalog, engines={backend: engine}))
                if found:
                    rows.append(_fold(backend, f"{what} {value}", found))
    return rows + list(_other_gpus(runs, catalog))


def _other_gpus(runs: Sequence[Run], catalog: Catalog) -> Iterator[dict[str, Any]]:
    """Errors on each GPU if it had no calibration of its own: constants of another GPU by datasheet ratios."""
    for gpu in dict.fromkeys(run.tier.gpu for run in runs):
        calibrations = {
            name: tier.calibration
            for name, tier in catalog.tiers.items()
            if tier.gpu != gpu and tier.calibration is not None and tier.calibration.basis is None
        }
        if not calibrations:
            continue
        tiers = with_calibrations(catalog.tiers.values(), calibrations)
        for backend in dict.fromkeys(run.backend for run in runs):
            own = [run for run in runs if run.tier.gpu == gpu and run.backend == backend]
            found, _ = replay_all([replace(run, tier=tiers[run.tier.name]) for run in own], catalog)
            if found:
                yield _fold(backend, f"calibration of {gpu}", found)


def _fold(backend: str, left_out: str, found: Sequence[Replayed]) -> dict[str, Any]:
    ttft, tpot = (quantiles([getattr(one, name) for one in found]) for name in ("ttft_error", "tpot_error"))
    return {
        "backend": backend,
        "left_out": left_out,
        "rows": len(found),
        "ttft": ttft,
        "tpot": tpot,
        "runs": [{"ttft": one.ttft_error, "tpot": one.tpot_error} for one in found],
    }


def _value(run: Run, what: str) -> str:
    return str({"tp": run.tensor_parallel, "model": run.model.name, "concurrency": run.concurrency}[what])


def _fitted(runs: Sequence[Run], start: ServingEngine) -> ServingEngine:
    return fit_engine(Pricing(runs, start), start)


def engines_toml(engines: Any, citation: str) -> str:
    """The `[engine.*]` blocks of some engines, as a catalog file."""
    lines = [
        "# What serving engines add to the kernels, written by `tokenfleet fidelity --fit`. Do not edit: run it again.",
        "# What each constant is: `ServingEngine` in simulator/catalog/calibration.py.",
    ]
    for engine in engines:
        source = f"serving-runs-{engine.name}"
        lines += [
            "",
            f"[engine.{engine.name}]",
            f'source = "{source}"',
            f'sources.{source} = {{ kind = "fitted", citation = "{citation}" }}',
            *(f"{name} = {getattr(engine, name):.4e}" for name in PRIORS),
            f"token_budget = {engine.token_budget}",
            f'scheduling = "{engine.scheduling}"',
            f"fp8_kv_cache = {str(engine.fp8_kv_cache).lower()}",
        ]
    return "\n".join(lines) + "\n"


def _requests(terminal: Terminal, path: Path, catalog: Catalog, *, as_json: bool) -> None:
    measured = read_requests(path, catalog)
    engine = catalog.engines[BACKEND]
    real, ours = measured_latencies(measured), replay_requests(measured, engine)
    distributions: list[dict[str, Any]] = []
    medians: dict[str, float] = {}
    for name in ("ttft_s", "tpot_s", "e2e_s"):
        was, now = getattr(real, name), getattr(ours, name)
        known = ~np.isnan(was)
        medians[name] = float(np.median(np.abs(now[known] / was[known] - 1)))
        for percentile in PERCENTILES:
            before, after = (float(np.percentile(values[known], percentile)) for values in (was, now))
            distributions.append(
                {
                    "what": name,
                    "percentile": percentile,
                    "measured": before,
                    "simulated": after,
                    "error": after / before - 1,
                }
            )
    calibration = measured.tier.calibration
    row = {
        "backend": BACKEND,
        "model": measured.model_name,
        "gpu": measured.gpu,
        "tp": measured.tensor_parallel,
        "rows": len(measured.arrival_s),
        "ttft_median_error": medians["ttft_s"],
        "tpot_median_error": medians["tpot_s"],
        "e2e_median_error": medians["e2e_s"],
        "tier": measured.tier.name,
        "evidence": None if calibration is None else str(calibration.evidence),
    }
    if as_json:
        terminal.print_json({"summary": [row], "distributions": distributions})
        return
    table = Table(
        title=f"{row['rows']} requests of {BACKEND} on {measured.tier.name} ({row['evidence']})", title_justify="left"
    )
    for heading in ("", "percentile", "measured [s]", "simulated [s]", "error"):
        table.add_column(heading, justify="left" if not heading else "right")
    for one in distributions:
        table.add_row(
            one["what"].removesuffix("_s").upper(),
            f"p{one['percentile']}",
            f"{one['measured']:.3g}",
            f"{one['simulated']:.3g}",
            f"{one['error']:+.1%}",
        )
    terminal.out.print(table)
    terminal.say(
        "median of the absolute errors, request by request: "
        + ", ".join(f"{name.removesuffix('_s').upper()} {value:.1%}" for name, value in medians.items())
    )


def _three(values: tuple[float, float, float]) -> str:
    return " / ".join(f"{value:.1%}" for value in values)


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    """Narrow enough for 80 columns."""
    table = Table(title="runs replayed: P50 / P90 of the absolute relative errors [%]", title_justify="left")
    for heading in ("backend", "model", "replica", "runs", "TPOT", "TTFT"):
        table.add_column(heading, justify="right" if heading in ("replica", "runs") else "left", overflow="fold")
    for row in rows:
        table.add_row(
            row["backend"],
            row["model"].rsplit("/", 1)[-1].removesuffix("-Instruct"),
            f"{row['tp']}x{row['tier']}",
            str(row["rows"]),
            *(f"{100 * row[f'{n}_median_error']:.3g} / {100 * row[f'{n}_p90_error']:.3g}" for n in ("tpot", "ttft")),
        )
    return table


def _fold_table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="by engine constants that were fitted without these runs", title_justify="left")
    for heading in ("backend", "left out", "runs", "TPOT", "TTFT"):
        table.add_column(heading, no_wrap=True)
    for row in rows:
        table.add_row(row["backend"], row["left_out"], str(row["rows"]), *(_plain(row[n]) for n in ("tpot", "ttft")))
    return table


def _plain(values: tuple[float, float, float]) -> str:
    return " / ".join(f"{100 * value:.1f}" for value in values)
