"""`tokenfleet list`: what there is by name. `LISTINGS` is the registry; each listing imports what it shows."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from experiments.options import JsonOption
from experiments.show.progress import Terminal
from simulator.errors import InputError

Rows = list[dict[str, Any]]


def command(
    context: typer.Context,
    what: Annotated[str, typer.Argument(help="policies, scenarios, models, gpus, traces or forecasters")],
    as_json: JsonOption = False,
) -> None:
    """List what is there, with units and sources.

    Example: `tokenfleet list gpus`
    """
    terminal: Terminal = context.obj
    rows = listing(what)
    if as_json:
        terminal.print_json({what: rows})
    else:
        terminal.out.print(_table(what, rows))


def _policies() -> Rows:
    from policies.registry import POLICIES

    return [{"name": name, "summary": entry.summary} for name, entry in POLICIES.items()]


def _scenarios() -> Rows:
    from experiments.scenario.scenario import shipped_scenarios

    return [{"name": name, "description": text} for name, text in shipped_scenarios().items()]


def _traces() -> Rows:
    from traces.formats.registry import READERS
    from traces.synthetic.profile import list_profiles, load_profile

    formats: Rows = [{"name": name, "kind": "format", "what": entry.summary} for name, entry in READERS.items()]
    profiles = [(name, load_profile(name).attribution) for name in list_profiles()]
    return formats + [{"name": name, "kind": "profile", "what": what} for name, what in profiles]


def _forecasters() -> Rows:
    from traces.forecast.registry import FORECASTERS

    return [{"name": name, "summary": entry.summary} for name, entry in FORECASTERS.items()]


def _stated(sections: tuple[str, ...]) -> Rows:
    from simulator.catalog import load_catalog

    return [
        {
            "name": value.block,
            "field": value.field,
            "value": value.value,
            "unit": value.unit,
            "kind": str(value.source.kind),
            "source": value.source.citation,
        }
        for value in load_catalog().provenance
        if value.section in sections
    ]


def _gpus() -> Rows:
    """The stated values of each GPU, and after them the evidence of its step times at each precision."""
    from simulator.catalog import load_catalog

    rows = _stated(("gpu", "precision"))
    for tier in load_catalog().tiers.values():
        calibration = tier.calibration
        if calibration is None:
            continue
        basis = "" if calibration.basis is None else f"constants of {calibration.basis} and datasheet ratios: "
        last = max(k for k, row in enumerate(rows) if row["name"] == tier.gpu)
        rows[last + 1 : last + 1] = [
            {
                "name": tier.gpu,
                "field": f"step_times.{tier.precision}.{phase}",
                "value": None if error is None else round(error.mape, 4),
                "unit": "mean relative error",
                "kind": str(calibration.evidence),
                "source": f"{basis}{calibration.source.citation}",
            }
            for phase, error in calibration.expected.items()
        ]
    return rows


def _models() -> Rows:
    return _stated(("model",))


LISTINGS: dict[str, Callable[[], Rows]] = {
    "policies": _policies,
    "scenarios": _scenarios,
    "models": _models,
    "gpus": _gpus,
    "traces": _traces,
    "forecasters": _forecasters,
}


def listing(what: str) -> Rows:
    """Rows of one kind.

    Raises
    ------
    InputError
        If there is no such kind.
    """
    if what not in LISTINGS:
        from simulator.validation import closest

        raise InputError(f"list: {what!r} cannot be listed; {closest(what, LISTINGS)}")
    return LISTINGS[what]()


def _table(what: str, rows: Rows) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=what, title_justify="left")
    for heading in rows[0]:
        table.add_column(heading, overflow="fold")
    last = None
    for row in rows:
        cells = [Text(str(value)) for value in row.values()]  # text, so that brackets are no markup
        table.add_row("" if row["name"] == last else cells[0], *cells[1:])
        last = row["name"]
    return table
