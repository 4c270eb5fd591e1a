"""`tokenfleet trace`: what is done with traces themselves; the work is in `traces`, here are options, tables and files.

`COMMANDS` is the registry: a command is a module and a line here.
"""

from experiments.cli.lazy import Entry, lazy_group

COMMANDS = {
    "fetch": Entry("experiments.cli.trace.fetch", "Download a public trace, once."),
    "convert": Entry("experiments.cli.trace.convert", "Any trace as Parquet, in the order of time."),
    "compare": Entry("experiments.cli.trace.compare", "How far is a trace from another, and is it more than chance?"),
    "synth": Entry(
        "experiments.cli.trace.synth", "A trace of any length, like a profile or from blocks of a real one."
    ),
    "fit": Entry("experiments.cli.trace.fit", "A profile for synth, from a trace of yours."),
    "describe": Entry(
        "experiments.cli.trace.describe", "What a trace is like: rate, burstiness, tokens, oddities, and a picture."
    ),
    "backtest": Entry("experiments.cli.trace.backtest", "How good would each forecaster have been?"),
}

command = lazy_group(COMMANDS)


@command.callback()
def about() -> None:
    """Read, describe, fetch, make, compare and forecast traces (docs/traces.md).

    Example: `tokenfleet trace describe AzureLLMInferenceTrace_conv.csv`
    """
