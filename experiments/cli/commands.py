"""The commands: `COMMANDS` is their registry. A new one is a module with a function `command` and a line here."""

from typing import Annotated

import typer

from experiments.cli.lazy import Entry, lazy_group
from experiments.options import QuietOption
from experiments.show.progress import Terminal

COMMANDS = {
    "plan": Entry("experiments.cli.plan", "Plan a fleet for a scenario, a trace or a problem file; verify it."),
    "replay": Entry("experiments.cli.replay", "Replay a trace against the fleets that policies plan."),
    "stress": Entry("experiments.studies.stress", "Plan at nominal, then let delay and error be worse."),
    "report": Entry("experiments.cli.report", "A page of what a run directory holds."),
    "results": Entry("experiments.cli.results", "Ask the tables of a run directory in SQL."),
    "follow": Entry("experiments.cli.follow", "What one request of a replay went through."),
    "check": Entry("experiments.cli.check", "Check a plan or a proof against its problem, or a plan by simulation."),
    "vet": Entry("experiments.cli.vet", "Judge a policy, shipped or your own, by what every policy owes."),
    "study": Entry("experiments.cli.study", "Questions that take many plans to answer."),
    "trace": Entry("experiments.cli.trace", "Read, describe, fetch, make, compare and forecast traces."),
    "calibrate": Entry("experiments.cli.calibrate", "Fit the delay model to measured step times."),
    "derive": Entry("experiments.cli.derive", "Rows for calibrate, derived from vLLM benchmark runs."),
    "fidelity": Entry("experiments.cli.fidelity", "How far is the simulation from measured runs of real engines?"),
    "list": Entry("experiments.cli.list", "Policies, scenarios, models, GPUs, traces and forecasters that there are."),
}

app = lazy_group(COMMANDS)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        Terminal().say(f"tokenfleet {version('tokenfleet')}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    quiet: QuietOption = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Plan, replay and stress fleets of rented GPUs that serve LLM queries."""
    del version
    context.obj = Terminal(quiet=quiet)
