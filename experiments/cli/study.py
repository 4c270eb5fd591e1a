"""`tokenfleet study`: every module of `experiments.studies` but `stress`, a command of its own."""

from experiments.cli.lazy import Entry, lazy_group
from experiments.studies import summaries

COMMANDS = {
    name: Entry(f"experiments.studies.{name}", summary) for name, summary in summaries().items() if name != "stress"
}

command = lazy_group(COMMANDS)


@command.callback()
def about() -> None:
    """Questions that take many plans to answer, each with its table and figure (docs/studies.md).

    Example: `tokenfleet study hysteresis --policy gh --duration 6h --seeds 1`
    """
