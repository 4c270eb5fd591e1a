"""`tokenfleet results`: ask the tables of a run directory in SQL."""

from pathlib import Path
from typing import Annotated, Any

import duckdb
import typer
from rich import box
from rich.table import Table
from rich.text import Text

from experiments.options import JsonOption, RunDirectory
from experiments.replay.directory import MARKER
from experiments.show.progress import Terminal
from simulator.errors import InputError

MOST_ROWS = 200


def command(
    context: typer.Context,
    directory: RunDirectory,
    sql: Annotated[
        str | None, typer.Option("--sql", help="A query over its tables; none: which tables and columns there are.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the tables of a run directory in SQL (DuckDB): each NAME.parquet is the table NAME.

    Example: `tokenfleet results runs/stress --sql "select policy, avg(cost_usd) from results group by policy"`
    """
    terminal: Terminal = context.obj
    names, rows = query(directory, sql)
    if as_json:
        terminal.print_json({"columns": names, "rows": [[_plain(value) for value in row] for row in rows]})
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
    for number, name in enumerate(names):
        numeric = any(isinstance(row[number], int | float) and not isinstance(row[number], bool) for row in rows)
        table.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows[:MOST_ROWS]:
        table.add_row(*(Text(_word(value)) for value in row))
    terminal.out.print(table)
    if len(rows) > MOST_ROWS:
        terminal.say(f"the first {MOST_ROWS} of {len(rows):,} rows; --json gives all")


def query(directory: Path, sql: str | None) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and rows of a query over the tables of a run directory.

    Raises
    ------
    InputError
        If it is no run directory, has no tables yet, or the query is wrong.
    """
    if not (directory / MARKER).is_file():
        raise InputError(f"{directory}: is no run directory of tokenfleet (no {MARKER})")
    files = sorted(directory.glob("*.parquet"))
    if not files:
        raise InputError(f"{directory}: holds no tables yet: the run has not ended")
    with duckdb.connect() as base:
        try:
            for file in files:
                path = str(file).replace("'", "''")
                base.execute(f"create view \"{file.stem}\" as select * from read_parquet('{path}')")
            found = base.execute(sql or "select table_name, column_name, data_type from information_schema.columns")
            names = [item[0] for item in found.description or ()]
            rows = found.fetchall()
        except duckdb.Error as error:
            raise InputError(f"--sql: {_first_line(str(error))}") from None
    if sql is None:
        from experiments.sweep.schema import BY_NAME

        units = [(BY_NAME[row[1]].unit if row[1] in BY_NAME else "") for row in rows]
        return [*names, "unit"], [(*row, unit) for row, unit in zip(rows, units, strict=True)]
    return names, rows


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else "DuckDB gave no reason"


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def _word(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
