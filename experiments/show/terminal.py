"""Tables on a terminal."""

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from experiments.show.parts import Table
from experiments.show.printable import printable

ALARM = "red"


def rich_table(table: Table) -> RichTable:
    """The table with its words on the left and its numbers on the right; a word that repeats downwards shows once."""
    made = RichTable(
        title=Text(table.title) if table.title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
        pad_edge=False,
    )
    for number, name in enumerate(table.columns):
        made.add_column(Text(name), justify="left" if number < table.labels else "right", overflow="fold")
    before: list[str] = []
    for number, row in enumerate(table.rows):
        after = table.rows[number + 1] if number + 1 < len(table.rows) else ()
        cells = list(row)
        if table.labels > 1 and before and before[0] == row[0]:
            cells[0] = ""
        ends = number in table.breaks or (table.labels > 1 and bool(after) and after[0] != row[0])
        styles = [ALARM if (number, column) in table.alarms else "" for column in range(len(cells))]
        made.add_row(*map(Text, map(printable, cells), styles), end_section=ends)
        before = list(row)
    return made


def print_table(out: Console, table: Table) -> None:
    """Print the table and its note."""
    out.print(rich_table(table))
    if table.note:
        out.print(table.note, markup=False, highlight=False)
