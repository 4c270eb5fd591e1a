"""`tokenfleet results`: ask the tables of a run directory in SQL."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
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
# The tables of our own, of replays, token logs, sweeps and backtests: a folder may be somebody else's, and hold others.
TABLES = (
    *("agreement", "costs", "events", "forecasts", "intervals", "load", "rentals", "requests", "segments"),
    *("results", "timing"),
)
COLUMNS = "select table_name, column_name, data_type from information_schema.columns"


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
        If it is no run directory, has no tables yet, or the query is wrong, is not one, or asks for anything else.
    """
    if not (directory / MARKER).is_file():
        raise InputError(f"{directory}: is no run directory of tokenfleet (no {MARKER})")
    files = [directory / f"{name}.parquet" for name in TABLES if (directory / f"{name}.parquet").is_file()]
    if not files:
        raise InputError(f"{directory}: holds no tables yet: the run has not ended")
    try:
        with duckdb.connect(config={"python_enable_replacements": False}) as base, _in_unicode(directory) as folder:
            paths = ["'" + str(folder / file.name).replace("'", "''") + "'" for file in files]
            for file, path in zip(files, paths, strict=True):
                base.execute(f'create view "{file.stem}" as select * from read_parquet({path})')
            # From here on no other file can be read, and none of this undone; that nothing is written, the kind says.
            base.execute(f"set allowed_paths = [{', '.join(paths)}]; set enable_external_access = false")
            base.execute("set lock_configuration = true")
            found = base.execute(_one_statement(sql) if sql else COLUMNS)
            names = [item[0] for item in found.description or ()]
            rows = found.fetchall()
    except duckdb.Error as error:
        raise InputError(f"--sql: {_first_line(str(error))}") from None
    if sql is None:
        from experiments.sweep.schema import BY_NAME

        units = [(BY_NAME[row[1]].unit if row[1] in BY_NAME else "") for row in rows]
        return [*names, "unit"], [(*row, unit) for row, unit in zip(rows, units, strict=True)]
    return names, rows


@contextmanager
def _in_unicode(directory: Path) -> Iterator[Path]:
    """The folder under a name that DuckDB takes: not every name of a file is text."""
    try:
        str(directory).encode()
        yield directory
    except UnicodeEncodeError:
        with TemporaryDirectory() as place:
            link = Path(place) / "run"
            link.symlink_to(directory.absolute())
            yield link


def _one_statement(sql: str) -> duckdb.Statement:
    statements = duckdb.extract_statements(sql)
    if len(statements) != 1 or statements[0].type not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
        kinds = ", ".join(statement.type.name for statement in statements) or "nothing"
        raise InputError(f"--sql: expected one SELECT, found {kinds}")
    return statements[0]


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else "DuckDB gave no reason"


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def _word(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
