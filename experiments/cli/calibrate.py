"""`tokenfleet calibrate`: its options, tables and files."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from experiments.calibrate.calibrate import Tested, TierFit, calibrate, tested_errors, toml_of, with_ratios
from experiments.calibrate.measurements import read_measurements
from experiments.options import CatalogOption, JsonOption
from experiments.show.atomic_write import write_whole
from experiments.show.progress import Terminal
from simulator.catalog import PhaseError, load_catalog
from simulator.errors import InputError

PHASES = ("prefill", "decode")


def command(
    context: typer.Context,
    measurements: Annotated[
        list[Path],
        typer.Argument(metavar="MEASUREMENTS.csv...", help="Measured steps (docs/calibration.md), gzipped or not."),
    ],
    out: Annotated[Path | None, typer.Option("--out", help="Write the constants to this catalog file.")] = None,
    test: Annotated[
        list[Path] | None, typer.Option("--test", help="Rows to test on that are not fitted to; repeatable.")
    ] = None,
    catalog_file: CatalogOption = None,
    source: Annotated[
        str | None, typer.Option("--source", help="Where rows in our own schema are from: goes into the file.")
    ] = None,
    figure: Annotated[Path | None, typer.Option("--figure", help="Picture of the residuals, .png or .svg.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Fit the `roofline` delay model to measured step times, with its errors on what it was not fitted to.

    Example: `tokenfleet calibrate composed_step_times.csv.gz --out mine.toml --figure residuals.png`
    """
    terminal: Terminal = context.obj
    if figure is not None and figure.suffix not in (".png", ".svg"):
        raise InputError(f"--figure: {figure}: expected a name that ends in .png or .svg")
    catalog = load_catalog(catalog_file)
    data = [read_measurements(path) for path in measurements]
    tests = [read_measurements(path) for path in test or []]
    fits = with_ratios([one for rows in data for one in calibrate(rows, catalog)])
    names = [one.tier.name for one in fits]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{', '.join(twice)}: in more than one file; measurements of one tier belong in one")
    constants = {one.tier.name: one.fitted.constants for one in fits}
    tested: list[Tested] = []
    without: list[str] = []
    for rows in tests:
        found, lacking = tested_errors(rows, catalog, constants)
        tested += found
        without += [f"{rows.path}: {name} was not fitted, its rows are not tested" for name in lacking]
    if out is not None:
        write_whole(out, toml_of(fits, source))
    if figure is not None:
        from experiments.calibrate.figure import draw_residuals  # here: Matplotlib takes long to load

        draw_residuals(fits, figure)
    for line in without:
        terminal.note(line)
    if as_json:
        terminal.print_json(result(fits, tested))
        return
    terminal.out.print(_fit_table(fits))
    for line in _fit_lines(fits):
        terminal.say(line)
    if any(one.left_out for one in fits):
        terminal.out.print(_fold_table(fits))
    for one in fits:
        if one.fitted.held:
            terminal.say(f"{one.tier.name}: the rows tell nothing of {', '.join(one.fitted.held)}: kept as assumed")
        for phase in PHASES:
            if getattr(one, phase) is None:
                terminal.say(f"{one.tier.name}: no {phase} rows: what only {phase} depends on is assumed")
    if tests:
        terminal.out.print(_test_table(tested))
    if out is not None:
        terminal.say(f"constants in {out}: `--catalog {out}`, or `[catalog] file` of a scenario")
    if figure is not None:
        terminal.say(f"picture in {figure}")


def result(fits: Sequence[TierFit], tested: Sequence[Tested]) -> dict[str, Any]:
    """What `--json` prints: errors are shares, times in seconds."""
    return {
        "calibrations": [
            {
                "tier": one.tier.name,
                "evidence": str(one.evidence),
                "constants": asdict(one.fitted.constants),
                "held": list(one.fitted.held),
                "range": asdict(one.range),
                **{
                    name: _error(getattr(one, name))
                    for name in (
                        "prefill",
                        "decode",
                        "unseen_prefill",
                        "unseen_decode",
                        "ratio_prefill",
                        "ratio_decode",
                        "paper_prefill",
                        "paper_decode",
                    )
                },
                "left_out": [
                    {"what": fold.what, "which": fold.which, **{p: _error(getattr(fold, p)) for p in PHASES}}
                    for fold in one.left_out
                ],
            }
            for one in fits
        ],
        "test": [
            {
                "gpu": one.gpu,
                "precision": one.precision,
                "phase": one.phase,
                **asdict(one.error),
                "tier": one.tier,
                "bias": one.bias,
            }
            for one in tested
        ],
    }


def _error(error: PhaseError | None) -> dict[str, Any] | None:
    return None if error is None else asdict(error)


def _cells(error: PhaseError | None) -> tuple[str, str]:
    return ("–", "–") if error is None else (f"{error.mape:.1%}", f"{error.p90:.1%}")


def _fit_table(fits: Sequence[TierFit]) -> Table:
    """Narrow enough for 80 columns."""
    table = Table(title="relative errors: mean and P90 of their size", title_justify="left")
    for heading in ("tier", "phase", "fit", "P90", "unseen", "P90", "ratio", "paper"):
        table.add_column(heading, justify="left" if heading in ("tier", "phase") else "right", no_wrap=True)
    for one in fits:
        for phase in PHASES:
            error = getattr(one, phase)
            if error is not None:
                table.add_row(
                    one.tier.name,
                    phase,
                    *_cells(error),
                    *_cells(getattr(one, f"unseen_{phase}")),
                    _cells(getattr(one, f"ratio_{phase}"))[0],
                    _cells(getattr(one, f"paper_{phase}"))[0],
                )
    return table


def _fit_lines(fits: Sequence[TierFit]) -> list[str]:
    """What the columns of the table mean, and what each fit stands on."""
    lines = ["unseen: a model (with one model: a TP degree) that was left out of the fit"]
    if any(one.ratio_basis for one in fits):
        lines.append("ratio: constants of another GPU and datasheet ratios")
    lines.append("paper: constants per token over TP, the best for these very rows")
    for one in fits:
        rows = [f"{error.rows} {phase}" for phase in PHASES if (error := getattr(one, phase)) is not None]
        basis = f"; ratio from {one.ratio_basis}" if one.ratio_basis else ""
        lines.append(f"{one.tier.name}: {one.evidence}, {' and '.join(rows)} rows{basis}")
    return lines


def _fold_table(fits: Sequence[TierFit]) -> Table:
    table = Table(title="on rows that were left out of the fit", title_justify="left")
    for heading in ("tier", "left out", "prefill", "P90", "decode", "P90"):
        table.add_column(heading, justify="left" if heading in ("tier", "left out") else "right")
    for one in fits:
        for fold in one.left_out:
            name = f"TP {fold.which}" if fold.what == "tensor_parallel" else fold.which
            table.add_row(one.tier.name, name, *_cells(fold.prefill), *_cells(fold.decode))
    return table


def _test_table(tested: Sequence[Tested]) -> Table:
    table = Table(title="tested on", title_justify="left")
    for heading in ("gpu", "precision", "phase", "rows", "mean", "P90", "median of signed errors"):
        table.add_column(heading, justify="left" if heading in ("gpu", "precision", "phase") else "right")
    for one in tested:
        table.add_row(one.gpu, one.precision, one.phase, str(one.error.rows), *_cells(one.error), f"{one.bias:+.1%}")
    return table
