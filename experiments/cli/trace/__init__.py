"""`tokenfleet trace`: what is done with traces themselves; the work is in `traces`, here are options, tables and files.

`COMMANDS` is the registry: a command is a module and a line here.
"""

from collections.abc import Callable
from dataclasses import dataclass

from experiments.cli.trace.backtest import command as backtest
from experiments.cli.trace.compare import command as compare
from experiments.cli.trace.convert import command as convert
from experiments.cli.trace.describe import command as describe
from experiments.cli.trace.fetch import command as fetch
from experiments.cli.trace.fit import command as fit
from experiments.cli.trace.synth import command as synth


@dataclass(frozen=True, slots=True)
class TraceCommand:
    """One line of the registry. `command` is a typer command; its context holds an
    `experiments.show.progress.Terminal`.
    """

    summary: str
    command: Callable[..., None]


COMMANDS: dict[str, TraceCommand] = {
    "fetch": TraceCommand("Download a public trace, once.", fetch),
    "convert": TraceCommand("Any trace as Parquet, in the order of time.", convert),
    "compare": TraceCommand("How far is a trace from another, and is it more than chance?", compare),
    "synth": TraceCommand("A trace of any length, like a profile or from blocks of a real one.", synth),
    "fit": TraceCommand("A profile for synth, from a trace of yours.", fit),
    "describe": TraceCommand("What a trace is like: rate, burstiness, tokens, oddities, and a picture.", describe),
    "backtest": TraceCommand("How good would each forecaster have been?", backtest),
}
